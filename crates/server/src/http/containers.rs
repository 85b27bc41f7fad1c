//! The documented routes of containers: `/stat`, `/create`, `/destroy`, on the main port and on one of their own.
//!
//! Invariant: what is told is told by status 200 and a text of the documents; a method of no use alone has 501. The same
//! actions are carried out as at the classic door, and who leaves before the answer was taken leaves no machine behind.
//! Not here: resources with proper statuses (`machines`).

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use machines::manager::Handover;
use plugins::call::Body;
use serde_json::{Map, Value, json};
use wire::container::{
    Complaint, Destroy, Generation, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY, REQUEST_VERB_STAT,
    Request as Asked, Response as Answer,
};

use super::cargo::Freight;
use super::machines::{Request, who};
use crate::accounts::keys;
use crate::tcp::{self, Action};

const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];
const VERBS: [&str; 3] = [REQUEST_VERB_STAT, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY];

/// The port that a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The one of everything, where nobody may ask for machines unknown.
    Main,
    /// The one of the documented routes alone, as open as the documents have it.
    Containers,
}

/// Whether `path` is a documented one on the main port: one segment, in letters of any case.
#[must_use]
pub fn is_at(path: &str) -> bool {
    let is_verb = |name: &str| VERBS.iter().any(|verb| verb.eq_ignore_ascii_case(name));
    path.strip_prefix('/').is_some_and(is_verb)
}

/// What is told, and of which new machine.
#[derive(Debug)]
struct Outcome {
    answer: Answer,
    lent: Option<Handover>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self { answer, lent: None }
    }
}

/// Answers a request.
pub(super) async fn answer(entrance: Entrance, mut request: Request<'_>) -> Response<Body> {
    let request = &mut request;
    let is_known = METHODS.contains(&request.head.method);
    let outcome = match is_known {
        true => carry_out(entrance, request).await.unwrap_or_else(Outcome::from),
        false => bare(&Complaint::Bad("")).into(),
    };
    let text = outcome.answer.to_json().to_string();
    let mut response = Response::new(Body::full(bytes::Bytes::from(text)));
    if let Some(handover) = outcome.lent {
        Freight::put_machine(handover, &mut response);
    }
    if !is_known {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn carry_out(entrance: Entrance, request: &mut Request<'_>) -> Result<Outcome, Answer> {
    let lending = request.lending;
    if !request.is_admitted() {
        return Err(bare(&Complaint::Refused));
    }
    let path = request.head.uri.path();
    if path == "/" {
        return Ok(home().into());
    }
    let verb = path.strip_prefix('/').unwrap_or_default().to_ascii_uppercase();
    let parameters = parameters(request).await?;
    let asked =
        Asked::new(&verb, parameters).map_err(|errors| bare(&Complaint::Malformed(&errors)))?;
    let owner = owner(entrance, request, &asked).await?;
    let action = match verb.as_str() {
        REQUEST_VERB_STAT => Action::Stat,
        REQUEST_VERB_CREATE => {
            let wanted = asked.create().map_err(|errors| bare(&Complaint::Malformed(&errors)))?;
            let order = Box::new(tcp::verbs::order(wanted, owner.as_deref()));
            let teller = tcp::events::Teller::default();
            Action::Create { order, client: client(request), teller }
        }
        REQUEST_VERB_DESTROY => {
            let Destroy { uuid, token } =
                asked.destroy().map_err(|errors| bare(&Complaint::Malformed(&errors)))?;
            // A UUID that none of ours can be: the same answer as for one that is not there.
            let id = uuid.parse().map_err(|_| bare(&Complaint::BadCredentials))?;
            Action::Destroy { id, token, client: client(request) }
        }
        _ => return Err(bare(&Complaint::UnknownVerb)),
    };
    match lending.act()(action).await {
        Ok(done) => {
            let answer = Answer::ok(tcp::verbs::data(&done));
            Ok(Outcome { answer, lent: done.handover() })
        }
        Err(error) => {
            let (complaint, failure) = tcp::verbs::complaint(&error);
            if failure.is_some() {
                tracing::error!("{verb} by HTTP failed: {error}");
            }
            Err(bare(&complaint))
        }
    }
}

/// Who asks, by address.
fn client(request: &Request<'_>) -> tcp::Client {
    tcp::Client::new(std::net::SocketAddr::new(request.client.ip, 0))
}

/// What comes with a request: the body of a POST; a GET brings nothing.
async fn parameters(request: &mut Request<'_>) -> Result<Map<String, Value>, Answer> {
    if request.head.method != Method::POST {
        return Ok(Map::new());
    }
    let body = super::body::read_small(request.incoming, request.policy, request.room).await;
    // That it is too long or broke off is the asker's affair; the documents have no other text for it.
    let body = body.map_err(|_| bare(&Complaint::Internal))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(parameters)) => Ok(parameters),
        Ok(_) => Err(bare(&Complaint::Bad(""))),
        Err(_) => Err(bare(&Complaint::Internal)),
    }
}

/// By whom machines are counted, if they may ask.
async fn owner(
    entrance: Entrance,
    request: &Request<'_>,
    asked: &Asked,
) -> Result<Option<String>, Answer> {
    let lending = request.lending;
    let wants_tokens = lending.wants_tokens();
    let internal = |error: String| {
        tracing::error!("access tokens cannot be read: {error}");
        bare(&Complaint::Internal)
    };
    if wants_tokens && let Some(token) = asked.access_token() {
        let owner = lending.owner_by_token(token.expose()).await.map_err(internal)?;
        return owner.map(Some).ok_or_else(|| whole(&Complaint::AccessTokenInvalid));
    }
    match entrance {
        Entrance::Containers if wants_tokens => Err(whole(&Complaint::AccessTokenRequired)),
        // A page somewhere else must not make its visitors ask.
        Entrance::Containers if keys::is_of_foreign_page(&request.head.headers) => {
            Err(bare(&Complaint::Refused))
        }
        Entrance::Containers => Ok(None),
        Entrance::Main => {
            let caller = match asked.verb.as_str() {
                REQUEST_VERB_STAT => who::sees(request).await,
                _ => who::changes(request).await,
            };
            let has_credential = request.head.headers.contains_key(header::AUTHORIZATION);
            caller.map(|caller| caller.counts_as).map_err(|refusal| match refusal.status() {
                StatusCode::UNAUTHORIZED if has_credential => bare(&Complaint::BadCredentials),
                StatusCode::UNAUTHORIZED if wants_tokens => whole(&Complaint::AccessTokenRequired),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    bare(&Complaint::Unavailable(""))
                }
                StatusCode::INTERNAL_SERVER_ERROR => bare(&Complaint::Internal),
                _ => bare(&Complaint::Refused),
            })
        }
    }
}

/// A refusal in the words of the documents, with its reason.
fn whole(complaint: &Complaint<'_>) -> Answer {
    Answer::refuse(complaint, Generation::Four)
}

/// A refusal as these routes have it: without a reason.
fn bare(complaint: &Complaint<'_>) -> Answer {
    let mut answer = whole(complaint);
    if let Some(end) = answer.message.find(" (") {
        answer.message.truncate(end);
    }
    answer
}

fn home() -> Answer {
    let links = json!({ "links": ["/stat", "/create", "/destroy"] });
    let Value::Object(data) = links else { return Answer::ok(Map::new()) };
    let message = format!("This is Gatehouse {}, which lends machines", env!("CARGO_PKG_VERSION"));
    Answer { message, ..Answer::ok(data) }
}

#[cfg(test)]
mod tests {
    use wire::container::Errors;

    use super::*;

    #[test]
    fn paths_are_one_segment_in_letters_of_any_case() {
        let check = |path, expected| assert_eq!(is_at(path), expected, "{path}");
        for path in ["/stat", "/STAT", "/Create", "/destroy"] {
            check(path, true);
        }
        for path in ["/", "/stat/", "/stat/x", "stat", "//stat", "/status", "/login"] {
            check(path, false);
        }
    }

    #[test]
    fn reasons_are_told_of_access_tokens_alone() {
        let check = |answer: Answer, expected: &str| {
            let expected = json!({ "success": false, "message": expected, "data": {} });
            assert_eq!(answer.to_json(), expected);
        };
        let errors = Errors::default();
        check(bare(&Complaint::Malformed(&errors)), "Bad request");
        check(bare(&Complaint::UnknownVerb), "Bad request");
        check(bare(&Complaint::NoPlace), "Unavailable");
        check(bare(&Complaint::Refused), "Refused request");
        check(bare(&Complaint::Internal), "Internal error");
        check(whole(&Complaint::AccessTokenInvalid), "Bad authentication (Invalid access token)");
    }

    #[test]
    fn the_home_has_links() {
        let home = home();
        assert!(home.success && home.data["links"].as_array().is_some_and(|it| !it.is_empty()));
    }
}
