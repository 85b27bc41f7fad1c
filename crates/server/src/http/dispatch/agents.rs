//! `/agents` and the switch of self-registration.

use http::{Method, Response};
use plugins::call::Body;
use serde_json::{Value, json};
use wire::Secret;

use super::refusal::Refusal;
use super::sessions::{done_by, note_newcomer, refused_to};
use super::{Answer, Request, answer};
use crate::accounts::{AccountName, Act, Agent, ChangeError};
use crate::dispatch::Dispatch;
use ::tasks::AgentId;

/// Lists, registers, renames or removes agents.
pub(super) async fn agents(request: &mut Request<'_>) -> Answer {
    if request.is(&Method::GET) {
        list(request).await
    } else if request.is(&Method::POST) {
        register(request).await
    } else if request.is(&Method::DELETE) {
        remove(request).await
    } else {
        rename(request).await
    }
}

async fn list(request: &Request<'_>) -> Answer {
    request.who_may(Act::See).await?;
    Ok(listed(request.dispatch, &request.dispatch.accounts.agents()))
}

/// The names of `agents` in their order, and which of them are there.
pub(super) fn listed(dispatch: &Dispatch, agents: &[Agent]) -> Response<Body> {
    let names: Vec<Value> = agents.iter().map(|agent| (&*agent.name).into()).collect();
    let is_online = |id: i64| dispatch.dispatcher.is_online(AgentId(id)).into();
    let online: serde_json::Map<String, Value> =
        agents.iter().map(|it| (it.name.to_string(), is_online(it.account.0))).collect();
    answer::json(&json!({ "error": false, "agents": names, "online": online }))
}

/// An agent makes its own account, where that is enabled.
async fn register(request: &Request<'_>) -> Answer {
    let accounts = &request.dispatch.accounts;
    if !accounts.self_registration() {
        return Err(ChangeError::Disabled.into());
    }
    let parameters = request.parameters()?;
    let (Some(user), Some(pass)) = (parameters.get("user"), parameters.get("pass")) else {
        return Err(Refusal::bad("Pass 'user' and 'pass' in query string"));
    };
    let name = AccountName::parse(user).map_err(ChangeError::Name)?;
    let rider = done_by(request, name.as_str(), "self-register", "");
    let registered = accounts.register(&name, &Secret::new(pass), request.client, rider).await;
    note_newcomer(request, name.as_str(), "self-register", &registered).await;
    registered?;
    Ok(answer::empty())
}

/// Removes an agent and all that is its own.
pub(super) async fn remove(request: &Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    let parameters = request.parameters()?;
    let name = parameters.need("id")?;
    let rider = done_by(request, &by.name, "remove agent", name);
    let removed = request.dispatch.accounts.remove_agent(name, rider).await;
    if let Err(error) = removed {
        refused_to(request, &by.name, "remove agent", name).await;
        return Err(of_agent(error, name));
    }
    Ok(answer::ok())
}

/// Gives an agent another name.
pub(super) async fn rename(request: &Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    let parameters = request.parameters()?;
    let (old, new) = (parameters.need("id")?, parameters.need("newId")?);
    let name = AccountName::parse(new).map_err(ChangeError::Name)?;
    let what = format!("{old} -> {new}");
    let rider = done_by(request, &by.name, "rename agent", &what);
    let renamed = request.dispatch.accounts.rename_agent(old, &name, rider).await;
    if let Err(error) = renamed {
        refused_to(request, &by.name, "rename agent", &what).await;
        return Err(of_agent(error, old));
    }
    Ok(answer::ok())
}

fn of_agent(error: ChangeError, name: &str) -> Refusal {
    match error {
        ChangeError::Unknown => Refusal::no_agent(name),
        other => other.into(),
    }
}

/// Tells or sets the switch.
pub(super) async fn self_registration(request: &mut Request<'_>) -> Answer {
    let by = request.who_may(Act::Administer).await?;
    let accounts = &request.dispatch.accounts;
    if request.is(&Method::GET) {
        return Ok(answer::text(if accounts.self_registration() { "1" } else { "0" }));
    }
    let parameters = request.parameters()?;
    let is_on = match parameters.get("enabled") {
        Some("1") => true,
        Some("0") => false,
        _ => return Err(Refusal::bad("Pass 'enabled=1' or 'enabled=0' in query string")),
    };
    let what = if is_on { "on" } else { "off" };
    let rider = done_by(request, &by.name, "self-registration", what);
    accounts.set_self_registration(is_on, rider).await?;
    Ok(answer::empty())
}
