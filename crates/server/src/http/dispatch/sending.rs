//! `POST /tasks`: one task for one agent, or the same for many, and the wait for what they answer.

use std::pin::pin;
use std::sync::Arc;

use ::tasks::dispatcher::Enqueued;
use ::tasks::task::{Ending, NewTask, Outcome};
use ::tasks::{AgentId, TaskId};
use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::parameters::Parameters;
use super::refusal::Refusal;
use super::sessions::done_by;
use super::tasks::WAIT_SECS_MAX;
use super::{Answer, Request, answer};
use crate::accounts::{Accounts, Act, Entry};
use crate::dispatch::Dispatch;

/// The longest a task may be told to wait for its agent, in seconds: a year.
pub(super) const TTL_SECS_MAX: u64 = 366 * 86_400;
/// The most often a task may be told to be tried again.
pub(super) const RETRIES_MAX: u32 = 1000;
/// Agents of one request.
pub(super) const TARGETS_MAX: usize = 20_000;

/// What is sent, and how.
pub(super) struct Order {
    pub(super) body: Bytes,
    pub(super) priority: i8,
    pub(super) ttl_secs: Option<u64>,
    pub(super) attempts_max: Option<u32>,
    pub(super) by: Arc<str>,
}

/// Whom a target means.
enum Targets {
    One(Arc<str>, AgentId),
    Many(Vec<(Arc<str>, Option<AgentId>)>),
}

/// How a task came out.
pub(super) enum Came {
    Ended(Arc<Ending>),
    TimedOut,
    AgentGone,
}

/// Sends a task.
pub(super) async fn send(request: &mut Request<'_>) -> Answer {
    let by = request.who_may(Act::Send).await?.name;
    let parameters = request.parameters()?;
    let wait =
        parameters.secs("timeout", 0, WAIT_SECS_MAX)?.unwrap_or(request.dispatch.config.wait);
    let waits = !parameters.is_on("noWait");
    let target = parameters.need("target")?.to_owned();
    let mut order = order(&parameters, by)?;
    drop(parameters);
    let targets = targets(&request.dispatch.accounts, &target)?;
    order.body = request.json("Invalid JSON").await?;
    if waits {
        request.activity.parks(wait);
    }
    let began = Instant::now();
    let until = waits.then_some(began + wait);
    let answer = match targets {
        Targets::One(name, agent) => one(request, order, (name, agent), until).await,
        Targets::Many(agents) => many(request, &order, agents, until).await,
    };
    request.may_still(Act::Send, began).await?;
    answer
}

fn order(parameters: &Parameters<'_>, by: Arc<str>) -> Result<Order, Refusal> {
    let ttl_secs = parameters.number("ttl", 0, TTL_SECS_MAX)?.filter(|secs| *secs > 0);
    let retries = parameters.number("retries", 0, RETRIES_MAX)?;
    Ok(Order {
        body: Bytes::new(),
        priority: parameters.number("priority", -100, 100)?.unwrap_or(0),
        ttl_secs,
        attempts_max: retries.map(|retries| retries + 1),
        by,
    })
}

/// A name that an agent has means that agent, whatever is in it.
fn targets(accounts: &Accounts, target: &str) -> Result<Targets, Refusal> {
    if let Some(agent) = accounts.agent(target) {
        return Ok(Targets::One(agent.name, AgentId(agent.account.0)));
    }
    if !target.contains(',') && !target.ends_with('*') {
        return Err(Refusal::no_agent(target));
    }
    let mut found: Vec<(Arc<str>, Option<AgentId>)> = Vec::new();
    for name in target.split(',') {
        match (accounts.agent(name), name.strip_suffix('*')) {
            (Some(agent), _) => found.push((agent.name, Some(AgentId(agent.account.0)))),
            (None, Some(prefix)) => {
                let agents = accounts.agents_beginning(prefix);
                found.extend(agents.into_iter().map(|it| (it.name, Some(AgentId(it.account.0)))));
            }
            (None, None) => found.push((name.into(), None)),
        }
        if found.len() > TARGETS_MAX {
            return Err(Refusal::bad(format!("More than {TARGETS_MAX} targets")));
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(name, _)| seen.insert(Arc::clone(name)));
    if found.is_empty() {
        return Err(Refusal::no_agent(target));
    }
    Ok(Targets::Many(found))
}

impl Order {
    fn task(&self, agent: AgentId) -> NewTask {
        NewTask {
            agent,
            body: self.body.clone(),
            priority: self.priority,
            ttl_secs: self.ttl_secs,
            attempts_max: self.attempts_max,
            by: Arc::clone(&self.by),
        }
    }
}

async fn one(
    request: &Request<'_>,
    order: Order,
    (name, agent): (Arc<str>, AgentId),
    until: Option<Instant>,
) -> Answer {
    let ride = |id| done_by(request, &order.by, "send task", &format!("{id} -> {name}"));
    let enqueued = request.dispatch.dispatcher.enqueue_with(order.task(agent), ride)?;
    drop(order);
    let (id, ended) = stored(request.dispatch, agent, enqueued).await?;
    let Some(until) = until else {
        let mut text =
            answer::Text::new("{\"error\":false,\"msg\":\"Task enqueued\",\"id\":\"", 24);
        return Ok(text.number(id.0).put("\"}").answer());
    };
    match come(request.dispatch, ended, until).await {
        Came::Ended(ending) => match (&ending.result, ending.outcome) {
            (Some(result), Outcome::Done) => {
                let mut text = answer::Text::new("{\"error\":false,\"result\":", result.len() + 32);
                Ok(text.put(result).put(",\"id\":\"").number(id.0).put("\"}").answer())
            }
            (_, outcome) => Err(Refusal::new(StatusCode::CONFLICT, message(outcome)).about(id)),
        },
        Came::TimedOut => {
            let begin = "{\"error\":false,\"result\":null,\"timeout\":true,\"id\":\"";
            Ok(answer::Text::new(begin, 24).number(id.0).put("\"}").answer())
        }
        Came::AgentGone => Err(deregistered().about(id)),
    }
}

pub(super) type Ended = tokio::sync::oneshot::Receiver<Arc<Ending>>;
/// A target, and the task that is on its way to it.
pub(super) type Sent = (Arc<str>, Result<(TaskId, Ended), Refusal>);

async fn stored(
    dispatch: &Dispatch,
    agent: AgentId,
    enqueued: Enqueued,
) -> Result<(TaskId, Ended), Refusal> {
    let Enqueued { id, stored, ended } = enqueued;
    stored.await.unwrap_or(Err(database::DatabaseError::Ended))?;
    // It was found before the body had come, and that may be long ago.
    if dispatch.forget_if_gone(agent).await {
        return Err(deregistered().about(id));
    }
    Ok((id, ended))
}

fn deregistered() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "Agent deregistered")
}

/// Waits for the end of a task, but not longer than until `until`.
pub(super) async fn come(dispatch: &Dispatch, ended: Ended, until: Instant) -> Came {
    match dispatch.unless_closing(pin!(tokio::time::timeout_at(until, ended))).await {
        Some(Ok(Ok(ending))) => Came::Ended(ending),
        Some(Ok(Err(_))) => Came::AgentGone,
        Some(Err(_)) | None => Came::TimedOut,
    }
}

/// Why a task that ended so has no result.
pub(super) fn message(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "Task has no result",
        Outcome::Cancelled => "Task was cancelled",
        Outcome::Expired => "Task expired before its agent took it",
        Outcome::Dead => "Task was given up: its agent took it and never answered",
    }
}

async fn many(
    request: &Request<'_>,
    order: &Order,
    agents: Vec<(Arc<str>, Option<AgentId>)>,
    until: Option<Instant>,
) -> Answer {
    let sent = send_all(request, order, agents).await;
    match until {
        Some(until) => Ok(results(request.dispatch, sent, until).await),
        None => Ok(ids(&sent)),
    }
}

/// Sends the same to all of them; the tasks that are given are on the disk.
pub(super) async fn send_all(
    request: &Request<'_>,
    order: &Order,
    agents: Vec<(Arc<str>, Option<AgentId>)>,
) -> Vec<Sent> {
    let known: Vec<_> = agents.iter().filter_map(|(name, agent)| Some((name, (*agent)?))).collect();
    let ride = |ids: &[Option<TaskId>]| {
        let names = known.iter().map(|(name, _)| &***name);
        let sent: Vec<_> = names.zip(ids).filter_map(|(name, id)| Some((name, (*id)?))).collect();
        done_by(request, &order.by, "send task", &told(&sent))
    };
    // All of them are on their way before the first is waited for: they share syncs.
    let new = known.iter().map(|(_, agent)| order.task(*agent));
    let mut enqueued = request.dispatch.dispatcher.enqueue_all(new, ride).into_iter();
    let mut sent = Vec::with_capacity(agents.len());
    let mut is_noted = None;
    for (name, agent) in agents {
        let outcome = match agent.and_then(|agent| Some((agent, enqueued.next()?))) {
            Some((agent, Ok(enqueued))) => {
                let stored = stored(request.dispatch, agent, enqueued).await;
                let is_down = |it: &Refusal| it.status() == StatusCode::SERVICE_UNAVAILABLE;
                is_noted.get_or_insert(!stored.as_ref().is_err_and(is_down));
                stored
            }
            Some((_, Err(error))) => Err(Refusal::from(error)),
            None => Err(Refusal::no_agent(&name)),
        };
        sent.push((name, outcome));
    }
    // The first, with which the entry was to be written, was not; others may be.
    if is_noted == Some(false) {
        note_sent(request, &order.by, &sent).await;
    }
    sent
}

/// Writes down what was sent without its entry.
async fn note_sent(request: &Request<'_>, by: &str, sent: &[Sent]) {
    let kept: Vec<_> =
        sent.iter().filter_map(|(name, sent)| Some((&**name, sent.as_ref().ok()?.0))).collect();
    if !kept.is_empty() {
        let (from, what) = (Some(request.client), told(&kept));
        let entry = Entry { who: by, from, act: "send task", what: &what, outcome: "ok" };
        request.dispatch.accounts.note(&entry).await;
    }
}

/// What is written down of tasks that were sent at once: of many, the first, the last, and how many there are.
fn told(sent: &[(&str, TaskId)]) -> String {
    match sent {
        [] => String::new(),
        [(name, id)] => format!("{id} -> {name}"),
        [(name, first), .., (other, last)] => {
            format!("{first} -> {name}, ..., {last} -> {other}: {} tasks", sent.len())
        }
    }
}

fn ids(sent: &[Sent]) -> http::Response<plugins::call::Body> {
    let mut ids = serde_json::Map::new();
    let mut failed = serde_json::Map::new();
    for (name, outcome) in sent {
        match outcome {
            Ok((id, _)) => ids.insert(name.to_string(), id.to_string().into()),
            Err(refusal) => failed.insert(name.to_string(), refusal.message().into()),
        };
    }
    let mut body = serde_json::json!({ "error": false, "msg": "Tasks enqueued", "ids": ids });
    if !failed.is_empty() {
        body["failed"] = failed.into();
    }
    answer::json(&body)
}

/// In the order of the targets; each waits for the others, but no longer than all may.
async fn results(
    dispatch: &Dispatch,
    sent: Vec<Sent>,
    until: Instant,
) -> http::Response<plugins::call::Body> {
    let mut text = answer::Text::new("{\"error\":false,\"results\":[", 128 * sent.len());
    for (at, (name, outcome)) in sent.into_iter().enumerate() {
        text.put(if at > 0 { ",{\"target\":" } else { "{\"target\":" }).string(&name);
        let (id, ended) = match outcome {
            Ok(sent) => sent,
            Err(refusal) => {
                text.put(",\"error\":true,\"msg\":").string(refusal.message()).put("}");
                continue;
            }
        };
        text.put(",\"id\":\"").number(id.0).put("\"");
        match come(dispatch, ended, until).await {
            Came::Ended(ending) => match (&ending.result, ending.outcome) {
                (Some(result), Outcome::Done) => {
                    text.put(",\"error\":false,\"result\":").put(result)
                }
                (_, outcome) => text.put(",\"error\":true,\"msg\":").string(message(outcome)),
            },
            Came::TimedOut => text
                .put(",\"error\":true,\"timeout\":true,\"msg\":")
                .string("Time out while waiting for task result"),
            Came::AgentGone => text.put(",\"error\":true,\"msg\":").string("Agent deregistered"),
        };
        text.put("}");
    }
    text.put("]}").answer()
}
