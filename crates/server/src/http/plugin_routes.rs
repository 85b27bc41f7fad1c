//! A request to a plugin: method, key and body are checked, then it becomes one call.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use plugins::call::{Body, Call};
use plugins::registry::Endpoint;

use super::policy::Policy;
use super::{body, error};
use crate::accounts::keys::{self, Evidence, Verdict};
use crate::site::Site;

/// Answers a request to `endpoint`.
pub async fn answer(
    site: &Site,
    policy: &Policy,
    endpoint: &Arc<Endpoint>,
    subpath: Option<String>,
    client_ip: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    if !endpoint.methods.contains(request.method()) {
        return error::method_not_allowed(&endpoint.methods);
    }
    let (head, incoming) = request.into_parts();
    let evidence = Evidence {
        headers: &head.headers,
        query: head.uri.query(),
        is_local: client_ip.is_loopback(),
    };
    let key = policy.global_key.as_ref();
    let verdict = keys::judge(&endpoint.access, key, &evidence, !incoming.is_end_stream());
    if verdict == Verdict::Refused {
        return error::unauthorized();
    }
    let body = match body::read(incoming, policy).await {
        Ok(body) => body,
        Err(error) => return error.response(),
    };
    let form = match body::form(&head.headers, &body).await {
        Ok(form) => form,
        Err(error) => return error.response(),
    };
    if verdict == Verdict::AskBody {
        let given = keys::key_in_body(&body, form.as_deref());
        let verdict = keys::judge_with_body(&endpoint.access, key, &evidence, given.as_deref());
        if verdict != Verdict::Granted {
            return error::unauthorized();
        }
    }
    let mut headers = head.headers;
    // The body has been put together; how it travelled is no longer true of it.
    headers.remove(TRANSFER_ENCODING);
    if body.is_empty() {
        headers.remove(CONTENT_LENGTH);
    }
    let call = Call { method: head.method, uri: head.uri, subpath, headers, body, form, client_ip };
    match site.registry.call(endpoint, &call).await {
        Ok(reply) => error::from_reply(reply),
        Err(failure) => {
            tracing::warn!(plugin = endpoint.name, "{failure}");
            error::of_call(&failure)
        }
    }
}
