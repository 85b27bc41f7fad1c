//! Where the server is, and which addresses are its own files.
//!
//! Invariant: an address counts as the server's own file only when scheme, host and port are the
//! configured ones and its path cannot lead out of `/files/`.

use ureq::http::Uri;

/// The address of the configured server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Without a slash at the end.
    base: String,
    uri: Uri,
}

impl Place {
    /// Reads `url`: `http://…` or `https://…`, with or without a path.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let base = url.trim_end_matches('/').to_owned();
        let bad = |why: &str| format!("`{url}` is not the address of a server: {why}");
        let uri: Uri = base.parse().map_err(|error| bad(&format!("{error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it must begin with http:// or https://"));
        }
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("it must be scheme, host, port and path alone"));
        }
        Ok(Self { base, uri })
    }

    /// The address of `route`.
    pub(crate) fn route(&self, route: &str) -> String {
        format!("{}/{route}", self.base)
    }

    /// Whether what is sent there can be read on the way: no TLS, and not this machine.
    pub(crate) fn is_open(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.uri.scheme_str() == Some("http") && !here
    }

    /// The full address of a file that `url` names on this very server; none when it is elsewhere.
    /// `/files/…` alone is this server's.
    ///
    /// # Errors
    /// In words, when `url` is no address, or one of this server but not of a file.
    pub(crate) fn own_file(&self, url: &str) -> Result<Option<String>, String> {
        let full = if url.starts_with('/') && !url.starts_with("//") {
            format!("{}{url}", self.base)
        } else {
            url.to_owned()
        };
        let uri: Uri = full.parse().map_err(|_| "this is no address".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("an address begins with http:// or https://, or with /files/".to_owned());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("an address with a user name in it is not asked".to_owned());
        }
        let same = |uri: &Uri| {
            let host = uri.host().unwrap_or_default().to_ascii_lowercase();
            (uri.scheme_str().map(str::to_owned), host, port(uri))
        };
        if same(&uri) != same(&self.uri) {
            return Ok(None);
        }
        let files = format!("{}/files/", self.uri.path().trim_end_matches('/'));
        if !uri.path().starts_with(&files) || has_steps(uri.path()) {
            return Err("of the own server, only files (/files/…) can be downloaded".to_owned());
        }
        Ok(Some(full))
    }
}

/// Whether the path has a step up or in place, also one written so that only the server undoes it.
fn has_steps(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    plain.split(['/', '\\']).any(|segment| segment == ".." || segment == ".")
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<Option<&str>, ()>) {
        let place = Place::parse("http://gate:80/base/").unwrap();
        let found = place.own_file(url);
        assert_eq!(found.as_ref().map(Option::as_deref).map_err(|_| ()), expected, "{url}");
    }

    #[test]
    fn only_files_of_the_very_server_are_its_own() {
        check("/files/1/a", Ok(Some("http://gate:80/base/files/1/a")));
        check("http://GATE/base/files/1/a%20b.txt", Ok(Some("http://GATE/base/files/1/a%20b.txt")));
        check("http://gate:80/base/files/1/..a", Ok(Some("http://gate:80/base/files/1/..a")));
        for elsewhere in
            ["https://gate/base/files/1", "http://gate:81/base/files/1", "http://gate.evil/files/1"]
        {
            check(elsewhere, Ok(None));
        }
    }

    #[test]
    fn no_other_route_of_the_server_is_asked_with_our_authorization() {
        for refused in [
            "http://gate/base/tasks?lease=1",
            "http://gate/base/files/../tasks",
            "/files/../tasks",
            "/files/%2E%2e/tasks",
            "/files/a%2F..%2Ftasks",
            "/tasks",
            "//gate/base/files/1",
            "http://gate@evil/files/1",
            "file:///etc/passwd",
            "files/1",
            "",
        ] {
            check(refused, Err(()));
        }
    }

    #[test]
    fn an_address_is_scheme_host_port_and_path() {
        for bad in ["gate:80", "ftp://gate", "", "http://", "http://u:p@gate", "http://gate/?a=1"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Place::parse("http://gate/x/").unwrap().route("tasks"), "http://gate/x/tasks");
    }

    #[test]
    fn a_secret_in_the_clear_is_noticed() {
        let is_open = |url: &str| Place::parse(url).unwrap().is_open();
        assert!(is_open("http://gate") && is_open("http://10.0.0.1:8000"));
        assert!(!is_open("https://gate") && !is_open("http://127.0.0.1:1"));
        assert!(!is_open("http://[::1]:8000") && !is_open("http://localhost"));
    }
}
