//! `/enroll_tokens` and `/enroll`: how a machine becomes an agent without a password that somebody shares.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use wire::Secret;

use super::parameters;
use super::refusal::Refusal;
use super::sessions::{done_by, note_newcomer, refused_to};
use super::{Answer, Request, answer};
use crate::accounts::enrolment::{TTL_MAX, USES_MAX};
use crate::accounts::{AccountName, Act, ChangeError};

/// How long a token is good unless something else is asked for.
const TTL: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Enrolment {
    token: String,
    name: String,
}

/// Makes a token by which machines become agents.
pub(super) async fn make_token(request: &mut Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    let parameters = request.parameters()?;
    let ttl = parameters.secs("ttl", 1, TTL_MAX.as_secs())?.unwrap_or(TTL);
    let uses = parameters.number("uses", 1, USES_MAX)?.unwrap_or(1);
    let what = format!("{uses} uses, {} s", ttl.as_secs());
    let rider = done_by(request, &by.name, "make enrolment token", &what);
    let token = request.dispatch.accounts.enrol_token(by.account, ttl, uses, rider).await;
    if token.is_err() {
        refused_to(request, &by.name, "make enrolment token", &what).await;
    }
    Ok(answer::json(&json!({
        "error": false,
        "token": token?.expose(),
        "expires_in": ttl.as_secs(),
        "uses": uses,
    })))
}

/// Makes whoever shows a token an agent, and tells it its secret, once.
pub(super) async fn enrol(request: &mut Request<'_>) -> Answer {
    request.parameters()?;
    let body = request.small_body().await?;
    let body = parameters::json(&body).ok_or_else(|| Refusal::bad("Invalid JSON"))?;
    let missing = |_| Refusal::bad("Pass 'token' and 'name' in a JSON object");
    let Enrolment { token, name } = serde_json::from_slice(&body).map_err(missing)?;
    let token = Secret::new(token);
    let name = AccountName::parse(&name).map_err(ChangeError::Name)?;
    let accounts = &request.dispatch.accounts;
    let rider = done_by(request, name.as_str(), "enrol", "");
    let enrolled = accounts.enrol(token.expose(), &name, request.client, rider).await;
    note_newcomer(request, name.as_str(), "enrol", &enrolled).await;
    let enrolled = enrolled?;
    Ok(answer::json(&json!({
        "error": false,
        "name": &*enrolled.name,
        "secret": enrolled.secret.expose(),
    })))
}
