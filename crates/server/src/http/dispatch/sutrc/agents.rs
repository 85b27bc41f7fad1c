//! `/agents` of the later protocol.

use http::Method;
use wire::Secret;

use super::super::agents::{listed, remove, rename};
use super::super::refusal::Refusal;
use super::super::sessions::{done_by, note_newcomer};
use super::super::{Answer, Request, answer};
use crate::accounts::{AccountName, Act, ChangeError};

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
    let mut agents = request.dispatch.accounts.agents();
    agents.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    Ok(listed(request.dispatch, &agents))
}

/// An agent makes its own account by its hardware id, or makes sure that it has one.
async fn register(request: &Request<'_>) -> Answer {
    let parameters = request.parameters()?;
    let (Some(name), Some(hwid)) = (parameters.get("name"), parameters.get("hwid")) else {
        return Err(Refusal::bad("Pass 'name' and 'hwid' in query string"));
    };
    let name = AccountName::parse(name).map_err(ChangeError::Name)?;
    let accounts = &request.dispatch.accounts;
    let rider = done_by(request, name.as_str(), "self-register", "");
    let hwid = Secret::new(hwid);
    let registered = accounts.register_hardware(&name, &hwid, request.client, rider).await;
    note_newcomer(request, name.as_str(), "self-register", &registered).await;
    registered?;
    Ok(answer::empty())
}
