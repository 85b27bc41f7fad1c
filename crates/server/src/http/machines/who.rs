//! Who asks about machines: an account, an access token, the holder of the global key, or, where none of these is
//! configured, anybody on this machine.
//!
//! Invariant: who has no credential gets in only where nobody has one, and only from this machine.

use http::header::AUTHORIZATION;
use plugins::parameters::Access;

use super::Request;
use super::refusal::Refusal;
use crate::accounts::keys::{self, Evidence, Verdict};
use crate::accounts::{Credential, Identity, Role};

/// Who asks.
#[derive(Debug)]
pub(in crate::http) struct Caller {
    /// Whose machines are theirs to see; `None`: everybody's.
    pub(in crate::http) owner: Option<String>,
    /// By whom machines are counted that they ask for.
    pub(in crate::http) counts_as: Option<String>,
    may_change: bool,
}

impl Caller {
    fn everybodys(counts_as: Option<String>) -> Self {
        Self { owner: None, counts_as, may_change: true }
    }

    fn own(owner: String) -> Self {
        Self { owner: Some(owner.clone()), counts_as: Some(owner), may_change: true }
    }
}

/// Who asks, if they may look.
pub(in crate::http) async fn sees(request: &Request<'_>) -> Result<Caller, Refusal> {
    let mut headers = request.head.headers.get_all(AUTHORIZATION).iter();
    match (headers.next(), headers.next()) {
        // A proxy in front might look at another of them.
        (Some(_), Some(_)) => Err(Refusal::unauthorized()),
        (Some(header), None) => with_credential(request, header.as_bytes()).await,
        (None, _) => without_credential(request),
    }
}

/// Who asks, if they may change something.
pub(in crate::http) async fn changes(request: &Request<'_>) -> Result<Caller, Refusal> {
    let caller = sees(request).await?;
    if caller.may_change { Ok(caller) } else { Err(Refusal::forbidden()) }
}

async fn with_credential(request: &Request<'_>, header: &[u8]) -> Result<Caller, Refusal> {
    if has_global_key(request) {
        return Ok(Caller::everybodys(None));
    }
    let credential = Credential::parse(header).ok_or_else(Refusal::unauthorized)?;
    if credential.pair().is_none()
        && let Some(owner) =
            request.lending.owner_by_token(credential.whole()).await.map_err(Refusal::internal)?
    {
        return Ok(Caller::own(owner));
    }
    let Some(dispatch) = &request.site.dispatch else { return Err(Refusal::unauthorized()) };
    let accounts = &dispatch.accounts;
    let known = match accounts.authenticate_now(&credential, request.client.ip) {
        Some(known) => known,
        None => accounts.authenticate(&credential, request.client.ip).await,
    };
    of_account(&known?)
}

fn of_account(identity: &Identity) -> Result<Caller, Refusal> {
    let owner = format!("account {}", identity.name);
    match identity.role {
        Role::Admin => Ok(Caller::everybodys(Some(owner))),
        Role::Operator => Ok(Caller::own(owner)),
        Role::Viewer => Ok(Caller { owner: None, counts_as: None, may_change: false }),
        Role::Agent => Err(Refusal::unauthorized()),
    }
}

fn without_credential(request: &Request<'_>) -> Result<Caller, Refusal> {
    let is_guarded = request.site.dispatch.is_some() || request.lending.wants_tokens();
    if has_global_key(request) || (!is_guarded && is_granted(request)) {
        return Ok(Caller::everybodys(None));
    }
    Err(Refusal::unauthorized())
}

fn has_global_key(request: &Request<'_>) -> bool {
    request.policy.global_key.is_some() && is_granted(request)
}

/// By the global key, or without one by being here.
fn is_granted(request: &Request<'_>) -> bool {
    let head = request.head;
    let evidence = Evidence {
        headers: &head.headers,
        query: head.uri.query(),
        is_local: request.client.is_known && keys::is_local(request.client.ip, &head.headers),
    };
    let key = request.policy.global_key.as_ref();
    keys::judge(&Access::Local, key, &evidence, false) == Verdict::Granted
}
