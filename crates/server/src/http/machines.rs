//! The routes of the third job as resources: `/machines`, `/images`.
//!
//! Invariant: what is refused is refused in this order: method, who asks, what is asked. Who may not see a machine is
//! told that there is none.
//! Not here: the documented routes `/stat`, `/create`, `/destroy`, which answer 200 always.

mod certificate;
pub(super) mod creating;
mod refusal;
mod shown;
pub(super) mod who;

use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use machines::{MachineId, Machines};
use plugins::call::{Body, Reply};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::refusal::Refusal;
use self::who::Caller;
use super::body::Room;
use super::client_ip::Client;
use super::policy::Policy;
use crate::lending::Lending;
use crate::site::Site;

/// The least of an id that names a machine.
const PREFIX_CHARS_MIN: usize = 4;
/// The most that is shown of a console, in bytes.
const CONSOLE_BYTES_MAX: usize = 64 << 10;

type Answer = Result<Response<Body>, Refusal>;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/machines`
    Machines,
    /// `/machines/ID`
    Machine(String),
    /// `/machines/ID/console`
    Console(String),
    /// `/machines/ID/certificate`
    Certificate(String),
    /// `/images`
    Images,
}

/// The endpoint at `path`.
#[must_use]
pub fn find(path: &str) -> Option<Endpoint> {
    let path = path.strip_prefix('/')?;
    let mut parts = path.strip_suffix('/').unwrap_or(path).split('/');
    let found = match (parts.next()?, parts.next(), parts.next()) {
        ("machines", None, None) => Endpoint::Machines,
        ("machines", Some(id), None) => Endpoint::Machine(id.to_owned()),
        ("machines", Some(id), Some("console")) => Endpoint::Console(id.to_owned()),
        ("machines", Some(id), Some("certificate")) => Endpoint::Certificate(id.to_owned()),
        ("images", None, None) => Endpoint::Images,
        _ => return None,
    };
    parts.next().is_none().then_some(found)
}

impl Endpoint {
    fn methods(&self) -> &'static [Method] {
        match self {
            Self::Machines => &[Method::GET, Method::HEAD, Method::POST],
            Self::Machine(_) => &[Method::GET, Method::HEAD, Method::PATCH, Method::DELETE],
            Self::Certificate(_) => &[Method::POST],
            Self::Console(_) | Self::Images => &[Method::GET, Method::HEAD],
        }
    }
}

/// One request, as endpoints see it.
pub(super) struct Request<'a> {
    pub(super) site: &'a Site,
    pub(super) lending: &'a Lending,
    pub(super) policy: &'a Policy,
    pub(super) room: &'a Room,
    pub(super) client: Client,
    pub(super) head: &'a Parts,
    pub(super) incoming: &'a mut Incoming,
}

impl Request<'_> {
    fn is(&self, method: &Method) -> bool {
        // HEAD is GET without the body, which the door sees to.
        self.head.method == method || (method == Method::GET && self.head.method == Method::HEAD)
    }

    /// Whether the filter of addresses lets the client ask. Whom a proxy does not name might be anybody.
    pub(super) fn is_admitted(&self) -> bool {
        let filter = self.lending.config.machines.ip_filter.as_ref();
        filter.is_none_or(|filter| self.client.is_known && filter.admits(self.client.ip))
    }

    fn machines(&self) -> &Machines {
        &self.lending.machines
    }

    /// The body, which must be one JSON object of this form; none at all is an empty one.
    async fn json<T: for<'de> Deserialize<'de> + Default>(&mut self) -> Result<T, Refusal> {
        let body = super::body::read_small(self.incoming, self.policy, self.room).await?;
        if body.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&body).map_err(|error| {
            let key = blamed::<T>(&body).map(|key| format!("{key}: "));
            Refusal::bad(format!("the body: {}{error}", key.unwrap_or_default()))
        })
    }
}

/// The key of `body` that cannot be read into its place, where one alone cannot. All are optional, so that each can be
/// tried without the others.
fn blamed<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Option<String> {
    let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let is_wrong = |(key, value): &(String, Value)| {
        T::deserialize(Value::Object(Map::from_iter([(key.clone(), value.clone())]))).is_err()
    };
    members.into_iter().find(is_wrong).map(|(key, _)| key)
}

/// Answers a request to `endpoint`.
pub(super) async fn answer(endpoint: Endpoint, mut request: Request<'_>) -> Response<Body> {
    let methods = endpoint.methods();
    if !methods.contains(&request.head.method) {
        return Refusal::method(methods).response();
    }
    if !request.is_admitted() {
        return Refusal::not_admitted(request.client.ip).response();
    }
    let request = &mut request;
    let answer = match endpoint {
        Endpoint::Machines if request.is(&Method::POST) => creating::create(request).await,
        Endpoint::Machines => list(request).await,
        Endpoint::Machine(id) => machine(request, &id).await,
        Endpoint::Console(id) => console(request, &id).await,
        Endpoint::Certificate(id) => certificate::issue(request, &id).await,
        Endpoint::Images => images(request).await,
    };
    answer.unwrap_or_else(Refusal::response)
}

async fn list(request: &Request<'_>) -> Answer {
    let caller = who::sees(request).await?;
    let list = request.machines().list(caller.owner.as_deref());
    let stat = request.machines().stat();
    Ok(json_answer(&json!({
        "machines": list.iter().map(shown::machine).collect::<Vec<_>>(),
        "available": stat.available,
        "uptime": stat.uptime.as_secs(),
    })))
}

async fn machine(request: &mut Request<'_>, id: &str) -> Answer {
    if request.is(&Method::GET) {
        let caller = who::sees(request).await?;
        let id = named(request, &caller, id)?;
        return show(request, id);
    }
    let caller = who::changes(request).await?;
    let id = named(request, &caller, id)?;
    if request.is(&Method::DELETE) {
        request.machines().end(id).await?;
        return Ok(json_answer(&json!({})));
    }
    let change: Change = request.json().await?;
    let Some(ttl) = change.ttl else { return Err(Refusal::bad("ttl: missing, in seconds")) };
    request.machines().extend(id, Duration::from_secs(ttl)).await?;
    show(request, id)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected an object")]
struct Change {
    ttl: Option<u64>,
}

fn show(request: &Request<'_>, id: MachineId) -> Answer {
    Ok(json_answer(&shown::machine(&request.machines().show(id)?)))
}

async fn console(request: &Request<'_>, id: &str) -> Answer {
    let caller = who::sees(request).await?;
    let id = named(request, &caller, id)?;
    let mut query = form_urlencoded::parse(request.head.uri.query().unwrap_or_default().as_bytes());
    let bytes = match query.find(|(name, _)| name == "bytes") {
        None => CONSOLE_BYTES_MAX,
        Some((_, bytes)) => bytes.parse().map_err(|_| Refusal::bad("bytes: not a number"))?,
    };
    let text = request.machines().console(id, bytes.min(CONSOLE_BYTES_MAX)).await?;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(super::error::from_reply(Reply::full(StatusCode::OK, plain, text)))
}

async fn images(request: &Request<'_>) -> Answer {
    who::sees(request).await?;
    let images = std::sync::Arc::clone(request.machines().images());
    let default = request.lending.default_image();
    let list = tokio::task::spawn_blocking(move || images.list()).await;
    let list = list.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    let list: Vec<Value> = list.iter().map(|image| shown::image(image, &default)).collect();
    Ok(json_answer(&json!({ "images": list })))
}

/// The one machine that `text` names, if the caller may know of it: a whole id, or enough of its beginning.
fn named(request: &Request<'_>, caller: &Caller, text: &str) -> Result<MachineId, Refusal> {
    if text.len() < PREFIX_CHARS_MIN {
        return Err(Refusal::bad(format!(
            "a machine's id: {PREFIX_CHARS_MIN} characters at least"
        )));
    }
    let list = request.machines().list(caller.owner.as_deref());
    let mut found = list.iter().filter(|it| it.id.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.id),
        (Some(_), Some(_)) => Err(Refusal::bad("more than one machine's id begins so")),
        (None, _) => Err(machines::MachineError::NotFound.into()),
    }
}

fn json_answer(body: &Value) -> Response<Body> {
    super::error::from_reply(Reply::json(StatusCode::OK, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_endpoints() {
        let check = |path, expected| assert_eq!(find(path), expected, "{path}");
        check("/machines", Some(Endpoint::Machines));
        check("/machines/", Some(Endpoint::Machines));
        check("/machines/ab12", Some(Endpoint::Machine("ab12".into())));
        check("/machines/ab12/console", Some(Endpoint::Console("ab12".into())));
        check("/machines/ab12/certificate", Some(Endpoint::Certificate("ab12".into())));
        check("/images", Some(Endpoint::Images));
        for other in ["/", "/machine", "/machines/a/b", "/machines/a/console/c", "/images/x"] {
            check(other, None);
        }
    }
}
