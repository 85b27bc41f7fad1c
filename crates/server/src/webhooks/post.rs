//! Posts one message to an address, over a connection that is kept for the next.
//!
//! Invariant: every step has a limit; no redirect is followed and no proxy is used: what is sent goes to the address
//! that was given.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use wire::Secret;

use super::Address;
use super::message::Message;

/// What a connection may take to open, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What an answer may take, from the first byte that is sent.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// What is read of an answer's body, which nobody wants, to keep the connection.
const UNWANTED_BYTES_MAX: usize = 64 << 10;
/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// There is no connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// It does not open.
    #[error("no connection within {CONNECT_LIMIT:?}")]
    ConnectTimedOut,
    /// TLS cannot be spoken at all.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It broke off.
    #[error("the connection broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// There is no answer.
    #[error("no answer within {ANSWER_LIMIT:?}")]
    AnswerTimedOut,
    /// The answer is no.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

/// Where messages are posted.
#[derive(Debug)]
pub(super) struct Post {
    address: Address,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Moves the bytes of the connection; at most one.
    driver: JoinSet<()>,
}

impl Post {
    pub(super) fn new(address: Address) -> Self {
        Self { address, sender: None, driver: JoinSet::new() }
    }

    /// Sends `message`, signed with `secret`; it was taken if this succeeds.
    pub(super) async fn send(
        &mut self,
        message: &Message,
        secret: &Secret,
    ) -> Result<(), PostError> {
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        if let Some(kept) = kept {
            match self.send_over(kept, message, secret).await {
                // It may have been closed at the other end just now, which is nobody's fault.
                Err(PostError::Broken(_)) => {}
                outcome => return outcome,
            }
        }
        let connect = tokio::time::timeout(CONNECT_LIMIT, self.connect()).await;
        let sender = connect.map_err(|_| PostError::ConnectTimedOut)??;
        self.send_over(sender, message, secret).await
    }

    async fn send_over(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        message: &Message,
        secret: &Secret,
    ) -> Result<(), PostError> {
        let request = self.request(message, secret);
        let ask = async {
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let rest = Limited::new(answer.into_body(), UNWANTED_BYTES_MAX).collect().await;
            Ok((status, rest.is_ok()))
        };
        let answered = tokio::time::timeout(ANSWER_LIMIT, ask).await;
        let (status, is_whole) =
            answered.map_err(|_| PostError::AnswerTimedOut)?.map_err(PostError::Broken)?;
        if is_whole {
            self.sender = Some(sender);
        }
        if status.is_success() { Ok(()) } else { Err(PostError::Refused(status)) }
    }

    fn request(&self, message: &Message, secret: &Secret) -> Request<Full<Bytes>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = now.as_secs();
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from(self.address.target().clone());
        let headers = [
            (HOST, self.address.authority().to_string()),
            (USER_AGENT, concat!("gatehouse/", env!("CARGO_PKG_VERSION")).to_owned()),
            (CONTENT_TYPE, "application/json".to_owned()),
            (http::HeaderName::from_static("x-gatehouse-event-id"), message.id.0.to_string()),
            (http::HeaderName::from_static("x-gatehouse-timestamp"), timestamp.to_string()),
            (
                http::HeaderName::from_static("x-gatehouse-signature"),
                message.signature(secret, timestamp),
            ),
        ];
        for (name, value) in headers {
            // Numbers, names and an authority can all stand in a header.
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        }
        request
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let (host, port) = (self.address.host(), self.address.port());
        let stream = TcpStream::connect((host, port)).await?;
        // Messages are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        if !self.address.is_https() {
            return self.shake_hands(stream).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(trust()?).connect(name, stream).await?;
        self.shake_hands(stream).await
    }

    async fn shake_hands<S>(&mut self, stream: S) -> Result<SendRequest<Full<Bytes>>, PostError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.driver.abort_all();
        while self.driver.join_next().await.is_some() {}
        // How it ends is told to who sends.
        self.driver.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Trusts the public authorities that the program brings, and those of this system: an administrator adds their own
/// there. Read once.
fn trust() -> Result<Arc<ClientConfig>, rustls::Error> {
    static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(trust) = TRUST.get() {
        return Ok(Arc::clone(trust));
    }
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let files = SYSTEM_ROOTS.map(std::path::PathBuf::from);
    if let Some(file) = named.into_iter().chain(files).find(|file| file.is_file()) {
        match CertificateDer::pem_file_iter(&file) {
            // What of it cannot be used is no reason to trust nobody.
            Ok(certificates) => {
                roots.add_parsable_certificates(certificates.flatten());
            }
            Err(error) => tracing::warn!("{}: {error}", file.display()),
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(TRUST.get_or_init(|| Arc::new(config))))
}
