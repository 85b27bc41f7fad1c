//! A request to a plugin: method, key and body are checked, then it becomes one call.

use std::mem;
use std::sync::Arc;

use http::Response;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use plugins::call::{Body, Call};
use plugins::registry::Endpoint;

use super::client_ip::Client;
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
    client: Client,
    head: &mut Parts,
    incoming: &mut Incoming,
) -> Response<Body> {
    if !endpoint.methods.contains(&head.method) {
        return error::method_not_allowed(&endpoint.methods);
    }
    let evidence = Evidence {
        headers: &head.headers,
        query: head.uri.query(),
        is_local: client.is_known && keys::is_local(client.ip, &head.headers),
    };
    let key = policy.global_key.as_ref();
    let verdict = keys::judge(&endpoint.access, key, &evidence, !incoming.is_end_stream());
    if verdict == Verdict::Refused {
        return error::unauthorized();
    }
    let held = match body::read(incoming, policy, &site.body_room).await {
        Ok(held) => held,
        Err(error) => return error.response(),
    };
    let form = match body::form(&head.headers, &held.bytes).await {
        Ok(form) => form,
        Err(error) => return error.response(),
    };
    if verdict == Verdict::AskBody {
        let given = keys::key_in_body(&held.bytes, form.as_deref());
        let verdict = keys::judge_with_body(&endpoint.access, key, &evidence, given.as_deref());
        if verdict != Verdict::Granted {
            return error::unauthorized();
        }
    }
    let body = held.bytes.clone();
    let mut headers = mem::take(&mut head.headers);
    // The body has been put together; how it travelled is no longer true of it.
    headers.remove(TRANSFER_ENCODING);
    if body.is_empty() {
        headers.remove(CONTENT_LENGTH);
    }
    let call = Call {
        method: mem::take(&mut head.method),
        uri: mem::take(&mut head.uri),
        subpath,
        headers,
        body,
        form,
        client_ip: client.ip,
    };
    match site.registry.call(endpoint, &call).await {
        Ok(reply) => error::from_reply(reply),
        Err(failure) => {
            tracing::warn!(plugin = endpoint.name, "{failure}");
            error::of_call(&failure)
        }
    }
}
