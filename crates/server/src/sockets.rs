//! Binds the sockets that the server listens on.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host} port {port}: {source}{}", hint(source))]
pub struct BindError {
    host: String,
    port: u16,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: end it, or set another port)",
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
        }
        io::ErrorKind::AddrNotAvailable => " (not an address of this machine)",
        _ => "",
    }
}

/// Every address that `host` stands for.
///
/// # Errors
/// When it means none.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>, BindError> {
    let all = resolve(host, 0).await?;
    Ok(all.into_iter().map(|address| address.ip()).collect())
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, BindError> {
    let failed = |source| BindError { host: host.to_owned(), port, source };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((bare, port)).await.map_err(failed)?.collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address")));
    }
    Ok(addresses)
}

/// Binds every address that `host` stands for; with port 0 all get the port that the first was given.
///
/// # Errors
/// When `host` means no address, or one of them cannot be bound.
pub async fn bind(host: &str, port: u16) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError { host: host.to_owned(), port, source };
    let mut sockets: Vec<TcpListener> = Vec::new();
    for mut address in resolve(host, port).await? {
        if let (0, Some(first)) = (port, sockets.first()) {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        sockets.push(listen(address).map_err(failed)?);
    }
    Ok(sockets)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let first = bind("127.0.0.1", 0).await.unwrap();
        let port = first[0].local_addr().unwrap().port();
        let error = bind("127.0.0.1", port).await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("set another port"), "{error}");
    }

    #[tokio::test]
    async fn a_name_means_its_addresses_and_no_others() {
        let found = addresses("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(addresses("[::]").await.unwrap(), ["::".parse::<IpAddr>().unwrap()]);
        assert!(addresses("256.1.1.1").await.is_err());
    }

    #[tokio::test]
    async fn a_host_that_does_not_exist_is_an_error() {
        assert!(bind("", 0).await.is_err());
        assert!(bind("256.1.1.1", 0).await.is_err());
    }
}
