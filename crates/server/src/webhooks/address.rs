//! Where a webhook is. Pure.

use http::Uri;
use http::uri::{Authority, InvalidUri, PathAndQuery};

/// Bytes of an address.
const BYTES_MAX: usize = 2048;

/// An address that begins with `http://` or `https://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    authority: Authority,
    target: PathAndQuery,
    is_https: bool,
}

/// Why a text is no address of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is too long.
    #[error("'url' has at most {BYTES_MAX} bytes")]
    TooLong,
    /// It is no address at all.
    #[error("'url' is no address: {0}")]
    Broken(String),
    /// It leads to something else.
    #[error("'url' must begin with http:// or https://")]
    Scheme,
    /// It carries a name and a password, which everybody who sees it would see.
    #[error("'url' must not hold a name or password; check the signature instead")]
    Credentials,
}

impl Address {
    /// Takes `url` as an address.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        if url.len() > BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let broken = |error: InvalidUri| AddressError::Broken(error.to_string());
        let uri: Uri = url.parse().map_err(broken)?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(AddressError::Scheme),
        };
        let parts = uri.into_parts();
        let authority = parts.authority.ok_or(AddressError::Scheme)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::Credentials);
        }
        let has_port = authority.as_str().len() > authority.host().len();
        let is_wrong = has_port && authority.port_u16().is_none_or(|port| port == 0);
        if authority.host().is_empty() || is_wrong {
            return Err(AddressError::Broken("it names no host, or a wrong port".to_owned()));
        }
        let target = target(parts.path_and_query.as_ref()).map_err(broken)?;
        Ok(Self { url: url.to_owned(), authority, target, is_https })
    }

    /// The address as it was given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Without the query, which may hold a key.
    #[must_use]
    pub fn without_query(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }

    /// Host and port as they were given, for the header `Host`.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 })
    }

    /// What is asked for there.
    #[must_use]
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }
}

/// A path is asked for even where the address has none before its query.
fn target(given: Option<&PathAndQuery>) -> Result<PathAndQuery, InvalidUri> {
    match given {
        // Shown, it begins with a slash in any case.
        Some(given) => given.to_string().parse(),
        None => Ok(PathAndQuery::from_static("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_a_port_and_a_target() {
        let check = |url: &str, host: &str, port: u16, target: &str, shown: &str| {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{url}");
            assert_eq!((address.target().as_str(), address.without_query()), (target, shown));
            assert_eq!(address.url(), url);
        };
        check("http://x.example", "x.example", 80, "/", "http://x.example");
        check("https://x/a?b=c", "x", 443, "/a?b=c", "https://x/a");
        check("http://[::1]:8080/", "::1", 8080, "/", "http://[::1]:8080/");
        check("HTTPS://127.0.0.1:1?x", "127.0.0.1", 1, "/?x", "HTTPS://127.0.0.1:1");
    }

    #[test]
    fn what_cannot_be_called_is_no_address() {
        let long = format!("http://x/{}", "a".repeat(BYTES_MAX));
        let wrong = [
            "",
            "nowhere",
            "/path",
            "http://",
            "http:///x",
            "file:///etc/passwd",
            "ftp://x/",
            "http://a:b@x/",
            "http://x:0/",
            "http://x:99999/",
            "http://x:/",
            "http://x y/",
            "http://x/\r\nHost: y",
            &long,
        ];
        for url in wrong {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
