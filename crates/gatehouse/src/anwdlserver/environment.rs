//! Looks before a start whether what the configuration names is there: ports, images, certificates, users, folders.
//!
//! Invariant: looking changes nothing; every fault names the file, the key and what to do.
//! Not here: what is done about it.

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use server::config::Config;
use server::config::containers::Containers;
use server::http::tls;
use server::lending;

use super::user;

/// Everything that is not as it must be.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// In words.
    pub(super) told: Vec<String>,
    /// Folders that are not there and can be made, with the key that needs them.
    pub(super) folders: Vec<(PathBuf, &'static str)>,
    /// Whether the public key is there without the private one: only new keys help.
    pub(super) lacks_private_key: bool,
}

impl Faults {
    /// Looks at what a server of this configuration needs; at its ports where nobody is known to have them.
    pub(super) fn of(config: &Config, containers: &Containers, ports_too: bool) -> Self {
        let mut faults = Self::default();
        let ports = containers.classic.as_ref().map(|classic| classic.port);
        let ports = ports.into_iter().chain(containers.web_server.as_ref().map(|web| web.port));
        for port in ports.filter(|_| ports_too) {
            faults.add("listen_port", is_free(&containers.bind_to, port));
        }
        faults.add("container_iso_file_path", has_image(containers));
        if let Some(tls) = containers.web_server.as_ref().and_then(|web| web.tls.as_ref()) {
            let readable = tls::acceptor(tls).map(|_| ()).map_err(|error| error.to_string());
            faults.add("ssl_pem_certificate_file_path, ssl_pem_private_key_file_path", readable);
        }
        if let Some(name) = &config.run_as {
            faults.add("user", user::find(name).map(|_| ()));
        }
        let files = [("log_file_path", &config.log.file), ("pid_file_path", &config.paths.pidfile)];
        for (key, file) in files {
            let folder = file.as_deref().and_then(Path::parent);
            let folder = folder.filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
            // The folder of machines is made by the server.
            if let Some(folder) = folder.filter(|folder| *folder != containers.machines.state) {
                faults.folders.push((folder.to_owned(), key));
            }
        }
        let keys = &containers.key_files;
        faults.lacks_private_key =
            containers.classic.is_some() && keys.public.exists() && !keys.private.exists();
        faults
    }

    fn add(&mut self, key: &str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.told.push(format!("{key}: {why}"));
        }
    }

    /// All of them in words, those that could be done something about as well.
    pub(super) fn all(&self, containers: &Containers) -> Vec<String> {
        let mut told = self.told.clone();
        told.extend(self.folders.iter().map(|(folder, key)| {
            format!(
                "{key}: there is no folder {} (make it, or let `start --assume-yes` do it)",
                folder.display()
            )
        }));
        if self.lacks_private_key {
            let keys = &containers.key_files;
            told.push(format!(
                "private_rsa_key_file_path: {} is there and {} is not (put it back, or have new keys made by \
                 `regen-rsa` or `start --assume-yes`)",
                keys.public.display(),
                keys.private.display()
            ));
        }
        told
    }
}

fn is_free(host: &str, port: u16) -> Result<(), String> {
    let told = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (another program listens there: end it, or set another)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 are for root)",
            _ => "",
        };
        format!("cannot listen on {host} port {port}: {error}{hint}")
    };
    for address in (host, port).to_socket_addrs().map_err(told)? {
        drop(TcpListener::bind(address).map_err(told)?);
    }
    Ok(())
}

fn has_image(containers: &Containers) -> Result<(), String> {
    if lending::has_default_image(containers) {
        return Ok(());
    }
    let machines = &containers.machines;
    Err(match (&machines.default_image, &machines.iso) {
        (None, Some(iso)) => {
            format!("{} is not there (put the image there, or name another)", iso.display())
        }
        (name, _) => format!(
            "there is no image {} in {} (make it: `gatehouse image build small`)",
            name.as_deref().unwrap_or("small"),
            machines.images.display()
        ),
    })
}
