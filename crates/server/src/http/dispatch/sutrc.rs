//! `/sutrc/api`: the later protocol of the same authors, with its own shapes, on the same accounts and tasks.
//!
//! Invariant: what is decided about a task or an account is decided where the other routes ask as well; here it is
//! only said in other words.

mod agents;
mod files;
mod object;
mod tasks;

use http::Method;

use super::{Answer, Request, sessions};
use crate::accounts::Login;
use crate::files::FileId;

/// An endpoint of the later protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/login`
    Login,
    /// `/logout`
    Logout,
    /// `/agents`
    Agents,
    /// `/agents_selfreg`, which is also called `/agent_selfreg`.
    SelfRegistration,
    /// `/tasks`
    Tasks,
    /// `/task_result`, once `/tasks_result`.
    Result,
    /// `/filedrop/NAME`
    NewFile,
    /// `/filedrop/ID/NAME`
    File(Option<FileId>),
}

/// The endpoint at a path that goes on with `path` after `/sutrc/`.
pub(super) fn find(path: &str) -> Option<Endpoint> {
    let api = path.strip_prefix("api/");
    // Its documents have files without `api`, too.
    if let Some(file) = api.unwrap_or(path).strip_prefix("filedrop/") {
        return match super::files::find(file)? {
            super::Endpoint::File(id) => Some(Endpoint::File(id)),
            _ => Some(Endpoint::NewFile),
        };
    }
    Some(match api? {
        "login" => Endpoint::Login,
        "logout" => Endpoint::Logout,
        "agents" => Endpoint::Agents,
        "agents_selfreg" | "agent_selfreg" => Endpoint::SelfRegistration,
        "tasks" => Endpoint::Tasks,
        "task_result" | "tasks_result" => Endpoint::Result,
        _ => return None,
    })
}

impl Endpoint {
    pub(super) fn methods(self) -> &'static [Method] {
        const ALL: &[Method] = &[
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ];
        match self {
            Self::Login | Self::Logout => ALL,
            Self::Agents => super::Endpoint::Agents.methods(),
            Self::SelfRegistration => super::Endpoint::SelfRegistration.methods(),
            Self::Tasks => super::Endpoint::Tasks.methods(),
            Self::Result | Self::NewFile => &[Method::POST],
            Self::File(_) => &[Method::GET, Method::HEAD],
        }
    }
}

/// Answers a request to `endpoint`.
pub(super) async fn answer(endpoint: Endpoint, request: &mut Request<'_>) -> Answer {
    match endpoint {
        Endpoint::Login => login(request).await,
        Endpoint::Logout => sessions::logout(request).await,
        Endpoint::Agents => agents::agents(request).await,
        Endpoint::SelfRegistration => super::agents::self_registration(request).await,
        Endpoint::Tasks if request.is(&Method::GET) => tasks::poll(request).await,
        Endpoint::Tasks => tasks::send(request).await,
        Endpoint::Result => tasks::result(request).await,
        Endpoint::NewFile => files::put(request).await,
        Endpoint::File(id) => super::files::give(request, id).await,
    }
}

/// Begins a session for whoever has a pass-code.
async fn login(request: &Request<'_>) -> Answer {
    let parameters = request.parameters()?;
    let code = parameters.get("token").ok_or_else(sessions::refused)?;
    let session = request.dispatch.accounts.login(Login::Passcode(code), request.client).await;
    let who = session.as_ref().map_or("a pass-code", |session| &*session.identity.name);
    sessions::note_login(request, who, &session).await;
    sessions::begun(session)
}

#[cfg(test)]
mod tests_of_paths {
    use super::*;

    #[test]
    fn paths_lead_to_endpoints_in_both_spellings() {
        let check = |path: &str, expected| assert_eq!(find(path), expected, "{path}");
        check("api/agent_selfreg", Some(Endpoint::SelfRegistration));
        check("api/agents_selfreg", Some(Endpoint::SelfRegistration));
        check("api/task_result", Some(Endpoint::Result));
        check("api/tasks_result", Some(Endpoint::Result));
        check("api/filedrop/x", Some(Endpoint::NewFile));
        check("api/filedrop/x/y", Some(Endpoint::File(None)));
        check("filedrop/x", Some(Endpoint::NewFile));
        for other in ["login", "api", "api/", "api/tasks/1", "api/filedrop", "api/filedrop/x/y/z"] {
            check(other, None);
        }
    }
}
