//! `/login` and `/logout`.

use database::Rider;
use http::StatusCode;
use http::header::AUTHORIZATION;
use plugins::call::FormValue;
use serde::Deserialize;
use serde_json::json;

use super::refusal::Refusal;
use super::{Answer, Request, answer};
use crate::accounts::audit::Entry;
use crate::accounts::{AuthError, ChangeError, Credential, Login, Session};
use crate::http::body;
use wire::Secret;

#[derive(Deserialize, Default)]
struct Credentials {
    user: Option<String>,
    pass: Option<String>,
}

/// Begins a session; name and password stand in a JSON or form body, or in the query.
pub(super) async fn login(request: &mut Request<'_>) -> Answer {
    let given = credentials(request).await?;
    let (Some(user), Some(pass)) = (given.user, given.pass.map(Secret::new)) else {
        return Err(refused());
    };
    let login = Login::Named { name: &user, password: pass.expose() };
    let session = request.dispatch.accounts.login(login, request.client).await;
    note_login(request, &user, &session).await;
    begun(session)
}

/// Writes down that `who` was not let in; a login that succeeds writes itself down. Those that were not even tried are
/// not: strangers who are told to wait would only fill a log that nobody can shorten.
pub(super) async fn note_login(
    request: &Request<'_>,
    who: &str,
    session: &Result<Session, AuthError>,
) {
    if let Err(AuthError::Refused) = session {
        refused_to(request, who, "login", "").await;
    }
}

/// Tells the token of a session.
pub(super) fn begun(session: Result<Session, AuthError>) -> Answer {
    let session = session.map_err(|error| match error {
        AuthError::Refused => refused(),
        other => other.into(),
    })?;
    Ok(answer::json(&json!({
        "error": false,
        "msg": "Logged in",
        "token": session.token.expose(),
        "role": session.identity.role.name(),
        "expires_in": session.expires_in.as_secs(),
    })))
}

pub(super) fn refused() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "Invalid credentials")
}

async fn credentials(request: &mut Request<'_>) -> Result<Credentials, Refusal> {
    let body = request.small_body().await?;
    let form = body::form(&request.head.headers, &body).await;
    if let Some(fields) = form.map_err(|error| Refusal::of_body(&error))? {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.and_then(|(_, value)| match value {
                FormValue::Text(text) => Some(text.clone()),
                FormValue::File(_) => None,
            })
        };
        if field("user").is_some() {
            return Ok(Credentials { user: field("user"), pass: field("pass") });
        }
    }
    if let Ok(Credentials { user: Some(user), pass }) = serde_json::from_slice(&body) {
        return Ok(Credentials { user: Some(user), pass });
    }
    let parameters = request.parameters()?;
    let get = |name| parameters.get(name).map(str::to_owned);
    Ok(Credentials { user: get("user"), pass: get("pass") })
}

/// Ends a session; one that does not exist has ended as well.
pub(super) async fn logout(request: &mut Request<'_>) -> Answer {
    let missing = || Refusal::bad("Missing Authorization header");
    let header = request.head.headers.get(AUTHORIZATION).ok_or_else(missing)?;
    if let Some(credential) = Credential::parse(header.as_bytes()) {
        request.dispatch.accounts.logout(&credential).await?;
    }
    Ok(answer::json(&json!({ "error": false, "msg": "Logged out" })))
}

/// Writes down that a stranger was not made the agent `who`. What they may try as often as they like is not: see
/// [`note_login`].
pub(super) async fn note_newcomer<T>(
    request: &Request<'_>,
    who: &str,
    act: &str,
    outcome: &Result<T, ChangeError>,
) {
    // These count as guesses, so there are not many.
    if let Err(ChangeError::BadToken | ChangeError::Disabled) = outcome {
        refused_to(request, who, act, "").await;
    }
}

/// What says in the audit log that `who` did something; it is to be written together with that.
pub(super) fn done_by(request: &Request<'_>, who: &str, act: &str, what: &str) -> Rider {
    Entry { who, from: Some(request.client), act, what, outcome: "ok" }.rider()
}

/// Writes down that `who` could not do something.
pub(super) async fn refused_to(request: &Request<'_>, who: &str, act: &str, what: &str) {
    let entry = Entry { who, from: Some(request.client), act, what, outcome: "refused" };
    request.dispatch.accounts.note(&entry).await;
}
