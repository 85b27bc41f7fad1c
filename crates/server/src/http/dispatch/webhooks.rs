//! `/webhooks`: who is sent each event.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::Secret;

use super::refusal::Refusal;
use super::sessions::{done_by, refused_to};
use super::{Answer, Request, answer};
use crate::accounts::{Act, token};
use crate::follow::Filter;
use crate::webhooks::{Address, New, WEBHOOKS_MAX, Webhook};

/// Bytes of a secret.
pub(super) const SECRET_BYTES_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    url: String,
    secret: Option<String>,
    agents: Option<Vec<String>>,
}

/// Lists webhooks, adds or removes one.
pub(super) async fn webhooks(request: &mut Request<'_>) -> Answer {
    if request.is(&Method::GET) {
        list(request).await
    } else if request.is(&Method::POST) {
        add(request).await
    } else {
        remove(request).await
    }
}

async fn list(request: &Request<'_>) -> Answer {
    request.who_may(Act::Administer).await?;
    let all = request.dispatch.webhooks.list();
    let all: Vec<Value> = all.iter().map(|webhook| shown(webhook)).collect();
    Ok(answer::json(&json!({ "error": false, "webhooks": all })))
}

/// Everything but the secret.
fn shown(webhook: &Webhook) -> Value {
    let fare = webhook.fare();
    json!({
        "id": webhook.id.to_string(),
        "url": webhook.address.url(),
        "agents": webhook.filter.patterns(),
        "created_at": webhook.created_at,
        "delivered_to": fare.delivered_to.0.to_string(),
        "last_error": fare.last_error,
        "failing_since": fare.failing_since,
    })
}

async fn add(request: &mut Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    request.parameters()?;
    let body = request.body().await?;
    let wish = wish(&body)?;
    let url = wish.address.without_query().to_owned();
    let secret = wish.secret.clone();
    let rider = done_by(request, &by.name, "add webhook", &url);
    let added = request.dispatch.webhooks.add(wish, rider).await;
    if !matches!(added, Ok(Some(_))) {
        refused_to(request, &by.name, "add webhook", &url).await;
    }
    let id = added?.ok_or_else(|| {
        let message = format!("There are {WEBHOOKS_MAX} webhooks already; remove one first");
        Refusal::new(StatusCode::CONFLICT, message)
    })?;
    let id = id.to_string();
    Ok(answer::json(&json!({ "error": false, "id": id, "secret": secret.expose() })))
}

fn wish(body: &[u8]) -> Result<New, Refusal> {
    let wish: Wish = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("Not a webhook in JSON: {error}")))?;
    let secret = wish.secret.map_or_else(token::new, Secret::new);
    if !(1..=SECRET_BYTES_MAX).contains(&secret.expose().len()) {
        return Err(Refusal::bad(format!("'secret' must have 1 to {SECRET_BYTES_MAX} bytes")));
    }
    Ok(New {
        address: Address::parse(&wish.url).map_err(|error| Refusal::bad(error.to_string()))?,
        filter: Filter::new(wish.agents.unwrap_or_default())
            .map_err(|error| Refusal::bad(error.to_string()))?,
        secret,
    })
}

async fn remove(request: &Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    let parameters = request.parameters()?;
    let id = parameters.need("id")?;
    let number = id.parse().map_err(|_| Refusal::bad("Non-numeric webhook id"))?;
    let rider = done_by(request, &by.name, "remove webhook", id);
    let removed = request.dispatch.webhooks.remove(number, rider).await;
    if matches!(removed, Ok(true)) {
        Ok(answer::ok())
    } else {
        refused_to(request, &by.name, "remove webhook", id).await;
        removed?;
        Err(Refusal::new(StatusCode::NOT_FOUND, "Webhook doesn't exist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_complete_or_refused() {
        let new = wish(br#"{"url": "http://x/"}"#).unwrap();
        assert_eq!((new.secret.expose().len(), new.filter), (64, Filter::default()));
        let new = wish(br#"{"url": "http://x/", "secret": "s", "agents": ["a*"]}"#).unwrap();
        assert!(new.secret.matches("s") && new.filter.wants("ab") && !new.filter.wants("b"));
        let long = format!(r#"{{"url": "http://x/", "secret": "{}"}}"#, "s".repeat(1025));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"url": 1}"#,
            r#"{"url": "x"}"#,
            &long,
            r#"{"url": "http://x/", "secret": ""}"#,
            r#"{"url": "http://x/", "agents": "a"}"#,
            r#"{"url": "http://x/", "agents": [""]}"#,
            r#"{"url": "http://x/", "agent": ["a"]}"#,
        ] {
            assert!(wish(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
