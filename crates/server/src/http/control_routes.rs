//! The routes that manage plugins: `/plugins`, `/reload/…`, `/load/…`, `/unload/…`.

use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use plugins::call::{Body, Reply};
use plugins::parameters::Access;
use plugins::registry::Outcome;
use serde_json::{Value, json};

use super::client_ip::Client;
use super::policy::Policy;
use super::{body, error};
use crate::accounts::keys::{self, Evidence, Verdict};
use crate::site::{Site, SiteError};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Control {
    /// The names of all plugins.
    List,
    /// A new version of everything.
    ReloadAll,
    /// A new version of one plugin.
    Reload(String),
    /// A file that was added.
    Load(String),
    /// One plugin less.
    Unload(String),
}

/// The control route at `path`, if it is one.
#[must_use]
pub fn find(path: &str) -> Option<Control> {
    let (first, rest) = split(path)?;
    match (first, rest) {
        ("plugins", None | Some("")) => Some(Control::List),
        ("reload", Some("all")) => Some(Control::ReloadAll),
        ("reload", Some(name)) if !name.is_empty() => Some(Control::Reload(decode(name))),
        ("load", Some(file)) if !file.is_empty() => Some(Control::Load(decode(file))),
        ("unload", Some(name)) if !name.is_empty() => Some(Control::Unload(decode(name))),
        _ => None,
    }
}

/// The documents write `/load<plugin>`, without the slash: that works where no plugin has the name.
#[must_use]
pub fn find_unslashed_load(path: &str) -> Option<Control> {
    let file = path.strip_prefix("/load")?;
    let is_name = !file.is_empty() && !file.contains('/');
    is_name.then(|| Control::Load(decode(file)))
}

fn split(path: &str) -> Option<(&str, Option<&str>)> {
    let path = path.strip_prefix('/')?;
    Some(match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest.strip_suffix('/').unwrap_or(rest))),
        None => (path, None),
    })
}

fn decode(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// Answers a control request.
pub async fn answer(
    site: &Site,
    policy: &Policy,
    control: Control,
    client: Client,
    head: &Parts,
    incoming: &mut Incoming,
) -> Response<Body> {
    // HEAD must change nothing, and all but the list do.
    let is_harmless = control == Control::List && head.method == Method::HEAD;
    if ![Method::GET, Method::POST].contains(&head.method) && !is_harmless {
        return error::method_not_allowed(&[Method::GET, Method::POST]);
    }
    let evidence = Evidence {
        headers: &head.headers,
        query: head.uri.query(),
        is_local: client.is_known && keys::is_local(client.ip, &head.headers),
    };
    // Without a global key they answer to this machine alone.
    let (access, key) = (Access::Local, policy.global_key.as_ref());
    let mut verdict = keys::judge(&access, key, &evidence, !incoming.is_end_stream());
    if verdict == Verdict::Refused {
        return error::unauthorized();
    }
    let held = match body::read(incoming, policy, &site.body_room).await {
        Ok(held) => held,
        Err(error) => return error.response(),
    };
    if verdict == Verdict::AskBody {
        let form = body::form(&head.headers, &held.bytes).await.unwrap_or_default();
        let given = keys::key_in_body(&held.bytes, form.as_deref());
        verdict = keys::judge_with_body(&access, key, &evidence, given.as_deref());
    }
    if verdict != Verdict::Granted {
        return error::unauthorized();
    }
    carry_out(site, control).await
}

async fn carry_out(site: &Site, control: Control) -> Response<Body> {
    let done = match control {
        Control::List => Ok(json!({ "loaded_plugins": site.registry.current().names() })),
        Control::Reload(name) => {
            site.reload(&name).await.map(|()| json!({ "reloaded": name, "success": true }))
        }
        Control::Load(file) => {
            let file = file.strip_suffix(".py").unwrap_or(&file);
            let loaded = site.load(file).await;
            loaded.map(|names| json!({ "loaded": file, "plugins": names, "success": true }))
        }
        Control::Unload(name) => {
            site.unload(&name).await.map(|()| json!({ "unloaded": name, "success": true }))
        }
        Control::ReloadAll => match site.reload_all().await {
            Ok(outcome) => return reloaded_all(&outcome),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(SiteError::Change(failure)) => error::of_change(&failure),
        Err(failure @ SiteError::Config(_)) => {
            error::response(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string())
        }
    }
}

/// A file that failed and had served before makes the reload a failure; one that never worked is named.
fn reloaded_all(outcome: &Outcome) -> Response<Body> {
    let failed: Value = outcome
        .failures
        .iter()
        .map(|(file, why, is_kept)| {
            (file.clone(), json!({ "error": why, "old_version_serves": is_kept }))
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut body = json!({
        "status": "All plugins reloaded",
        "loaded_plugins": outcome.names,
    });
    if !outcome.failures.is_empty() {
        body["failed"] = failed;
    }
    let Some((file, why, _)) = outcome.failures.iter().find(|(_, _, is_kept)| *is_kept) else {
        return json_response(StatusCode::OK, &body);
    };
    body["status"] = json!("Some plugins could not be reloaded");
    body["error"] = json!(format!("{file}: {why}; its old version goes on"));
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    error::from_reply(Reply::json(status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_to_do() {
        assert_eq!(find("/plugins"), Some(Control::List));
        assert_eq!(find("/plugins/"), Some(Control::List));
        assert_eq!(find("/reload/all"), Some(Control::ReloadAll));
        assert_eq!(find("/reload/my%20one"), Some(Control::Reload("my one".into())));
        assert_eq!(find("/load/late.py"), Some(Control::Load("late.py".into())));
        assert_eq!(find("/unload/late/"), Some(Control::Unload("late".into())));
        for other in ["/", "/reload", "/reload/", "/load", "/plugins/x", "/hello", "plugins"] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn load_works_without_the_slash_as_the_documents_write_it() {
        assert_eq!(find_unslashed_load("/loadlate"), Some(Control::Load("late".into())));
        assert_eq!(find_unslashed_load("/load"), None);
        assert_eq!(find_unslashed_load("/load/late"), None);
    }
}
