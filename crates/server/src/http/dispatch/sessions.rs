//! `/login` and `/logout`.

use http::StatusCode;
use http::header::AUTHORIZATION;
use plugins::call::FormValue;
use serde::Deserialize;
use serde_json::json;

use super::refusal::Refusal;
use super::{Answer, Request, answer};
use crate::accounts::audit::Entry;
use crate::accounts::{AuthError, Credential, Login, Session};
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
    // What the limit on attempts turns away is not written down: strangers could fill the disk.
    match &session {
        Ok(_) => note(request, &user, "login", "", "ok"),
        Err(AuthError::Refused) => note(request, &user, "login", "", "refused"),
        Err(AuthError::TooMany { .. } | AuthError::Busy | AuthError::Unavailable(_)) => {}
    }
    begun(session)
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
    let body = request.body().await?;
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

/// Writes down who did what. Nobody waits for it: it is on its way to the disk like everything else.
pub(super) fn note(request: &Request<'_>, who: &str, act: &str, what: &str, outcome: &str) {
    let entry = Entry { who, from: Some(request.client), act, what, outcome };
    drop(request.dispatch.accounts.audit(&entry));
}
