//! `/login` and `/logout`.

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
    note_login(request, &user, &session);
    begun(session)
}

/// Writes down a login of `who`. Those that were not even tried are not: strangers who are told to wait would only fill
/// a log that nobody can shorten.
pub(super) fn note_login(request: &Request<'_>, who: &str, session: &Result<Session, AuthError>) {
    match session {
        Ok(_) => note(request, who, "login", "", "ok"),
        Err(AuthError::Refused) => note(request, who, "login", "", "refused"),
        Err(AuthError::TooMany { .. } | AuthError::Busy | AuthError::Unavailable(_)) => {}
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

/// Writes down that a stranger tried to become the agent `who`. What they may try as often as they like is not: see
/// [`note_login`].
pub(super) fn note_newcomer<T>(
    request: &Request<'_>,
    who: &str,
    act: &str,
    outcome: &Result<T, ChangeError>,
) {
    match outcome {
        Ok(_) => note(request, who, act, "", "ok"),
        // These count as guesses, so there are not many.
        Err(ChangeError::BadToken | ChangeError::Disabled) => {
            note(request, who, act, "", "refused");
        }
        Err(_) => {}
    }
}

/// Writes down who did what. Nobody waits for it: it is on its way to the disk like everything else.
pub(super) fn note(request: &Request<'_>, who: &str, act: &str, what: &str, outcome: &str) {
    let entry = Entry { who, from: Some(request.client), act, what, outcome };
    request.dispatch.accounts.note(&entry);
}
