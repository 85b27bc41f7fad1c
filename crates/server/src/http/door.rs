//! What happens to every request: a name, a route, an answer, its headers, a line in the log.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use plugins::builtin::files::FileServer;
use plugins::call::Body;
use plugins::unit::Runtime;

use super::access_log::{Line, is_wanted};
use super::activity::Activity;
use super::body::{self, Sent};
use super::cargo::Freight;
use super::client_ip::{Client, came_by_tls, client_ip};
use super::containers::{self, Entrance};
use super::policy::Policy;
use super::request_id::RequestId;
use super::{control_routes, dispatch, error, machines, plugin_routes};
use crate::site::Site;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One connection's view of the server.
#[derive(Debug, Clone)]
pub struct Door {
    /// The server.
    pub site: Arc<Site>,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// By which port.
    pub entrance: Entrance,
    /// The connection's notes.
    pub activity: Arc<Activity>,
}

impl Door {
    /// Answers one request.
    ///
    /// # Errors
    /// Never: whatever goes wrong is an answer.
    pub fn answer(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Sent>, Infallible>> + Send + use<> {
        let in_request = self.activity.begin(request.version());
        let is_waiting = request.headers().contains_key(header::EXPECT);
        let (mut head, mut incoming) = request.into_parts();
        // Not an `async fn`: its arguments would take their place twice, and very many requests wait at a time.
        async move {
            let policy = self.site.policy.load_full();
            let id = RequestId::next();
            let client = client_ip(self.peer.ip(), &head.headers, &policy.trusted_proxies);
            let origin = match policy.cors {
                Some(_) => head.headers.get(header::ORIGIN).cloned(),
                None => None,
            };
            let is_head = head.method == Method::HEAD;
            let mut line = Line::begin(id, client.ip, &head, policy.access_log);
            if line.version == Version::HTTP_2 {
                as_in_http1(&mut head);
            }
            let mut response =
                self.route(&policy, &mut line, client, &mut head, &mut incoming).await;
            if !body::finish(&mut incoming, is_waiting).await && line.version < Version::HTTP_2 {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            if let Some(cors) = &policy.cors {
                cors.decorate(origin.as_ref(), response.headers_mut());
            }
            response.headers_mut().insert(X_REQUEST_ID, id.header());
            if has_no_body(response.status()) {
                drop_body(&mut response);
            } else if is_head {
                without_body(&mut response);
            }
            let is_http2 = line.version == Version::HTTP_2;
            line.status = response.status();
            line.is_logged = is_wanted(policy.access_log, line.status);
            let line = (line.is_logged || line.files.is_some()).then_some(line);
            let freight = Freight::take(&mut response);
            Ok(response.map(|body| Sent::new(body, line, freight, is_http2, in_request)))
        }
    }

    async fn route(
        &self,
        policy: &Policy,
        line: &mut Line,
        client: Client,
        head: &mut Parts,
        incoming: &mut Incoming,
    ) -> Response<Body> {
        if let Some(cors) = &policy.cors
            && let Some(response) = cors.preflight(&head.method, &head.headers)
        {
            return response;
        }
        let site = &*self.site;
        let path = head.uri.path();
        if !has_one_host(head) {
            return not_one_host(site, path);
        }
        if self.entrance == Entrance::Containers {
            return self.about_machines(policy, client, head, incoming).await;
        }
        if let Some(tasks) = &site.dispatch
            && let Some(endpoint) = dispatch::find(path)
        {
            if endpoint.may_park() {
                line.uri = own(&head.uri);
            }
            let request = dispatch::Request {
                dispatch: tasks,
                policy,
                room: &site.body_room,
                activity: &self.activity,
                client: client.ip,
                is_secure: site.tls.load().is_some()
                    || came_by_tls(self.peer.ip(), &head.headers, &policy.trusted_proxies),
                head: &mut *head,
                incoming,
            };
            return dispatch::answer(endpoint, request).await;
        }
        if site.lending.is_some() && (machines::find(path).is_some() || containers::is_at(path)) {
            return self.about_machines(policy, client, head, incoming).await;
        }
        if let Some(control) = control_routes::find(path) {
            let answer = control_routes::answer(site, policy, control, client, head, incoming);
            // Seldom asked: on the heap, so that other requests are no larger for it.
            return Box::pin(answer).await;
        }
        let found = site
            .registry
            .current()
            .find(path)
            .map(|found| (Arc::clone(found.endpoint), found.subpath));
        if let Some((endpoint, subpath)) = found {
            line.files = common_log(&endpoint.runtime);
            let answer =
                plugin_routes::answer(site, policy, &endpoint, subpath, client, head, incoming);
            return Box::pin(answer).await;
        }
        if let Some(control) = control_routes::find_unslashed_load(path) {
            let answer = control_routes::answer(site, policy, control, client, head, incoming);
            // Seldom asked: on the heap, so that other requests are no larger for it.
            return Box::pin(answer).await;
        }
        match site.dispatch {
            Some(_) => dispatch::not_found(path),
            None => error::not_found(path),
        }
    }
}

impl Door {
    /// Answers what is asked about machines: as resources, or as the documents have it.
    async fn about_machines(
        &self,
        policy: &Policy,
        client: Client,
        head: &Parts,
        incoming: &mut Incoming,
    ) -> Response<Body> {
        let site = &*self.site;
        let Some(lending) = &site.lending else { return error::not_found(head.uri.path()) };
        let found = match self.entrance {
            Entrance::Main => machines::find(head.uri.path()),
            Entrance::Containers => None,
        };
        let room = &site.body_room;
        let request = machines::Request { site, lending, policy, room, client, head, incoming };
        // Seldom asked: on the heap, so that other requests are no larger for it.
        match found {
            Some(endpoint) => Box::pin(machines::answer(endpoint, request)).await,
            None => Box::pin(containers::answer(self.entrance, request)).await,
        }
    }
}

/// The same in memory of its own: what hyper gives lies in the buffer of the connection, and keeps it.
fn own(uri: &Uri) -> Uri {
    let text = uri.path_and_query().map(|it| Bytes::copy_from_slice(it.as_str().as_bytes()));
    let own = text.and_then(|text| Uri::from_maybe_shared(text).ok());
    own.unwrap_or_else(|| uri.clone())
}

/// HTTP/1.1 asks for exactly one: a proxy in front might go by another than we do.
fn has_one_host(head: &Parts) -> bool {
    head.version != Version::HTTP_11
        || head.headers.get_all(header::HOST).iter().take(2).count() == 1
}

fn not_one_host(site: &Site, path: &str) -> Response<Body> {
    let message = "a request needs exactly one Host";
    match site.dispatch {
        Some(_) if dispatch::find(path).is_some() => dispatch::bad_request(message),
        _ => error::response(StatusCode::BAD_REQUEST, message),
    }
}

fn common_log(runtime: &Runtime) -> Option<Arc<FileServer>> {
    match runtime {
        Runtime::Files(files) if files.is_logging() => Some(Arc::clone(files)),
        Runtime::Files(_) | Runtime::Python { .. } | Runtime::SystemInfo(_) => None,
    }
}

/// Gives a head of HTTP/2 what plugins know from HTTP/1: `Host`, and one `Cookie` line (RFC 9113, 8.2.3
/// and 8.3.1).
fn as_in_http1(head: &mut Parts) {
    if let (false, Some(authority)) =
        (head.headers.contains_key(header::HOST), head.uri.authority())
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(header::HOST, host);
    }
    let crumbs: Vec<&[u8]> =
        head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        head.headers.insert(header::COOKIE, cookie);
    }
}

/// Whether an answer with this status ends with its headers.
fn has_no_body(status: StatusCode) -> bool {
    [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

fn drop_body(response: &mut Response<Body>) {
    response.headers_mut().remove(header::CONTENT_LENGTH);
    if response.status() != StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    *response.body_mut() = Body::empty();
}

/// An answer to HEAD: the headers of GET, its length among them, and nothing behind them.
fn without_body(response: &mut Response<Body>) {
    let length = response.body().size_hint().exact();
    if let (Some(length), false) = (
        length.filter(|length| *length > 0),
        response.headers().contains_key(header::CONTENT_LENGTH),
    ) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}
