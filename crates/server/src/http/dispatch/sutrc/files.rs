//! `/filedrop`: files in transfer, as the later protocol names them.

use http::header;
use http::uri::Authority;

use super::super::files::store;
use super::super::{Answer, Request, answer};

/// Takes a file, and tells its address as plain text.
pub(super) async fn put(request: &mut Request<'_>) -> Answer {
    let put = store(request).await?;
    Ok(answer::text(format!("{}/sutrc/api/filedrop/{}", origin(request), put.path())))
}

/// Where the client has found us; nothing where it does not say, and then the address is one on the same server.
fn origin(request: &Request<'_>) -> String {
    let host = request.head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match host.and_then(|host| host.parse::<Authority>().ok()) {
        Some(host) if request.is_secure => format!("https://{host}"),
        Some(host) => format!("http://{host}"),
        None => String::new(),
    }
}
