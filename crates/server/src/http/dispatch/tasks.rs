//! `/tasks` and what belongs to it: an agent takes, answers and extends; an operator sends, looks and cancels.

use std::pin::pin;
use std::time::Duration;

use ::tasks::delivery::Delivery;
use ::tasks::dispatcher::LEASE_SECS_MAX;
use ::tasks::ledger::Judgement;
use ::tasks::store::{Late, TaskQuery};
use ::tasks::task::{State, View};
use ::tasks::{AgentId, TaskId};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::refusal::Refusal;
use super::sessions::{done_by, refused_to};
use super::{Answer, Request, agent_of, answer};
use crate::accounts::Act;
use crate::http::cargo::Freight;

/// The longest poll, in seconds.
pub(super) const POLL_SECS_MAX: u64 = 60;
/// The lease of a heartbeat that names none, when the last one is not known.
const LEASE: Duration = Duration::from_secs(60);
/// Tasks of one poll.
pub(super) const POLL_TASKS_MAX: usize = 100;
/// The longest an operator may wait, in seconds.
pub(super) const WAIT_SECS_MAX: u64 = 3600;
/// Tasks of one page of the history.
pub(super) const PAGE_MAX: usize = 1000;
/// A longer result is left out of the history; `/tasks/ID` has it.
const LISTED_BYTES_MAX: usize = 4 << 10;
/// The most output of one answer.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

pub(super) use super::sending::send;

/// Gives an agent its tasks, as soon as there are some.
pub(super) async fn poll(request: &mut Request<'_>) -> Answer {
    let identity = request.who_may(Act::Serve).await?;
    let parameters = request.parameters()?;
    let lease = parameters.secs("lease", 1, LEASE_SECS_MAX)?;
    let wait = parameters.secs("wait", 0, POLL_SECS_MAX)?.unwrap_or(request.dispatch.config.wait);
    let max = parameters.number("max", 1, POLL_TASKS_MAX)?.unwrap_or(1);
    drop(parameters);
    request.park(wait);
    let dispatcher = &request.dispatch.dispatcher;
    let poll = pin!(dispatcher.poll(agent_of(&identity), max, lease, Instant::now() + wait));
    let deliveries = request.dispatch.unless_closing(poll).await.unwrap_or(Ok(Vec::new()))?;
    let mut answer = poll_answer(&deliveries, lease);
    Freight::put(deliveries, &mut answer);
    Ok(answer)
}

fn poll_answer(
    deliveries: &[Delivery],
    lease: Option<Duration>,
) -> http::Response<plugins::call::Body> {
    let room = deliveries.iter().map(|it| it.body().len() + 24).sum::<usize>() + 96;
    let mut text = answer::Text::new("{\"error\":false,\"events\":{", room);
    for (at, delivery) in deliveries.iter().enumerate() {
        text.put(if at > 0 { ",\"" } else { "\"" }).number(delivery.task().0);
        text.put("\":").put(delivery.body());
    }
    text.put("}");
    if let Some(lease) = lease {
        text.put(",\"claims\":{");
        for (at, delivery) in deliveries.iter().enumerate() {
            text.put(if at > 0 { ",\"" } else { "\"" }).number(delivery.task().0);
            text.put("\":\"").number(delivery.claim().0).put("\"");
        }
        text.put("},\"lease\":").number(lease.as_secs());
    }
    text.put("}").answer()
}

/// Takes an agent's result.
pub(super) async fn result(request: &mut Request<'_>) -> Answer {
    let agent = agent_of(&request.who_may(Act::Serve).await?);
    let parameters = request.parameters()?;
    let (task, claim) = (parameters.task()?, parameters.claim()?);
    drop(parameters);
    let result = request.json("Invalid JSON passed in body").await?;
    let judgement = request.dispatch.dispatcher.complete(agent, task, claim, result).await?;
    match judgement {
        // Old agents repeat themselves; nothing else can be told to one that names no claim.
        Judgement::First | Judgement::Unknown => Ok(answer::empty()),
        Judgement::Late if claim.is_none() => Ok(answer::empty()),
        Judgement::Late => Err(Refusal::new(
            StatusCode::CONFLICT,
            "The claim is no longer held; the result was kept as a late one",
        )
        .about(task)),
    }
}

/// An agent works on a task still.
pub(super) async fn extend(request: &mut Request<'_>) -> Answer {
    let agent = agent_of(&request.who_may(Act::Serve).await?);
    let parameters = request.parameters()?;
    let task = parameters.task()?;
    let claim = parameters.claim()?.ok_or_else(|| Refusal::bad("Missing claim parameter"))?;
    let dispatcher = &request.dispatch.dispatcher;
    let lease = match parameters.secs("lease", 1, LEASE_SECS_MAX)? {
        Some(lease) => lease,
        None => dispatcher.lease_of(task).unwrap_or(LEASE),
    };
    if dispatcher.extend(agent, task, claim, lease) {
        let mut text = answer::Text::new("{\"error\":false,\"lease\":", 8);
        return Ok(text.number(lease.as_secs()).put("}").answer());
    }
    let view = dispatcher.task(task).await?.filter(|view| view.task.agent == agent);
    let message = match view.map(|view| view.state) {
        Some(State::Ended(::tasks::task::Outcome::Cancelled)) => "Task was cancelled",
        _ => "The claim is no longer held",
    };
    Err(Refusal::new(StatusCode::CONFLICT, message).about(task))
}

/// Keeps a piece of the output of a task that is under way.
pub(super) async fn add_output(request: &mut Request<'_>) -> Answer {
    let agent = agent_of(&request.who_may(Act::Serve).await?);
    let parameters = request.parameters()?;
    let (task, claim) = (parameters.task()?, parameters.claim()?);
    let offset = parameters.number("offset", 0, i64::MAX.unsigned_abs())?.unwrap_or(0);
    drop(parameters);
    let bytes = request.body().await?;
    let end = request.dispatch.dispatcher.add_output(agent, task, claim, offset, bytes).await?;
    let Some(end) = end else {
        let message = "The task is not under way here, or the claim is no longer held";
        return Err(Refusal::new(StatusCode::CONFLICT, message).about(task));
    };
    let has_hole = offset > end.next && !end.is_capped;
    let mut text = answer::Text::new("{\"error\":", 64);
    text.put(if has_hole { "true,\"msg\":\"There is a hole before offset\"" } else { "false" });
    text.put(",\"next\":").number(end.next);
    let mut answer = text.put(if end.is_capped { ",\"capped\":true}" } else { "}" }).answer();
    if has_hole {
        *answer.status_mut() = StatusCode::CONFLICT;
    }
    Ok(answer)
}

/// Shows a task, once it has ended if that is asked for; or cancels it.
pub(super) async fn task(request: &mut Request<'_>, id: Option<TaskId>) -> Answer {
    if request.is(&Method::DELETE) {
        return cancel(request, id).await;
    }
    request.who_may(Act::See).await?;
    let parameters = request.parameters()?;
    let wait = parameters.secs("wait", 0, WAIT_SECS_MAX)?;
    let id = id.ok_or_else(Refusal::no_task)?;
    let dispatcher = &request.dispatch.dispatcher;
    if let Some(wait) = wait {
        request.activity.parks(wait);
        let began = Instant::now();
        let end = pin!(dispatcher.wait_for_end(id, began + wait));
        request.dispatch.unless_closing(end).await;
        request.may_still(Act::See, began).await?;
    }
    let view = dispatcher.task(id).await?.ok_or_else(|| Refusal::no_such_task(id))?;
    let late = match &view.ending {
        Some(_) => dispatcher.late_results(id).await?,
        None => Vec::new(),
    };
    let name = name_of(request, view.task.agent).ok_or_else(Refusal::no_task)?;
    let mut text = answer::Text::new("{\"error\":false,\"task\":", 256 + view.task.body.len());
    put_task(&mut text, &view, &name, &late, usize::MAX);
    Ok(text.put("}").answer())
}

async fn cancel(request: &Request<'_>, id: Option<TaskId>) -> Answer {
    let by = request.who_may(Act::Send).await?;
    let id = id.ok_or_else(Refusal::no_task)?;
    let why = format!("cancelled by {}", by.name);
    let what = id.to_string();
    let rider = done_by(request, &by.name, "cancel task", &what);
    let cancelled = request.dispatch.dispatcher.cancel(id, &why, false, Some(rider)).await;
    if cancelled.is_err() {
        refused_to(request, &by.name, "cancel task", &what).await;
    }
    cancelled?;
    Ok(answer::raw(&b"{\"error\":false,\"state\":\"cancelled\"}"[..]))
}

/// Gives a page of tasks, the newest first.
pub(super) async fn history(request: &mut Request<'_>) -> Answer {
    request.who_may(Act::See).await?;
    let parameters = request.parameters()?;
    let state = match parameters.get("state") {
        None => None,
        Some(name) => {
            let expected = "'state' must be queued, taken, done, cancelled, expired or dead";
            Some(State::parse(name).ok_or_else(|| Refusal::bad(expected))?)
        }
    };
    let agent = match parameters.get("agent") {
        None => None,
        Some(name) => {
            let agent = request.dispatch.accounts.agent(name);
            Some(AgentId(agent.ok_or_else(|| Refusal::no_agent(name))?.account.0))
        }
    };
    let max = i64::MAX.unsigned_abs();
    let before = TaskId(parameters.number("before", 0, max)?.unwrap_or(max));
    let limit = parameters.number("limit", 1, PAGE_MAX)?.unwrap_or(100);
    let query = TaskQuery { agent, outcome: None, open: false, before, limit }.in_state(state);
    let (views, next) = request.dispatch.dispatcher.tasks(query).await?;
    // Queued and taken are told apart in memory only.
    let is_meant = |view: &&View| state.is_none_or(|state| state == view.state);
    let mut text = answer::Text::new("{\"error\":false,\"tasks\":[", views.len() * 256);
    let mut is_first = true;
    for view in views.iter().filter(is_meant) {
        let Some(name) = name_of(request, view.task.agent) else { continue };
        text.put(if is_first { "" } else { "," });
        put_task(&mut text, view, &name, &[], LISTED_BYTES_MAX);
        is_first = false;
    }
    text.put("],\"next\":");
    match next {
        Some(next) => text.put("\"").number(next.0).put("\""),
        None => text.put("null"),
    };
    Ok(text.put("}").answer())
}

fn name_of(request: &Request<'_>, agent: AgentId) -> Option<std::sync::Arc<str>> {
    request.dispatch.accounts.agent_by_id(crate::accounts::AccountId(agent.0)).map(|it| it.name)
}

fn put_task(text: &mut answer::Text, view: &View, agent: &str, late: &[Late], bytes_max: usize) {
    let View { task, state, attempts, taken_at, ending } = view;
    text.put("{\"id\":\"").number(task.id.0).put("\",\"agent\":").string(agent);
    text.put(",\"state\":\"").put(state.name()).put("\",\"priority\":");
    text.put(task.priority.to_string()).put(",\"attempts\":").number(u64::from(*attempts));
    text.put(",\"by\":").string(&task.by).put(",\"enqueued_at\":").number(task.enqueued_at);
    if let Some(at) = taken_at {
        text.put(",\"taken_at\":").number(*at);
    }
    if let Some(at) = task.expires_at {
        text.put(",\"expires_at\":").number(at);
    }
    if let Some(ending) = ending {
        text.put(",\"ended_at\":").number(ending.ended_at);
        if let Some(reason) = &ending.reason {
            text.put(",\"reason\":").string(reason);
        }
    }
    // The store leaves out what is too long for a list.
    if (1..=bytes_max).contains(&task.body.len()) {
        text.put(",\"body\":").put(&task.body);
    }
    if let Some(result) = ending.as_ref().and_then(|it| it.result.as_ref())
        && result.len() <= bytes_max
    {
        text.put(",\"result\":").put(result);
    }
    if !late.is_empty() {
        text.put(",\"late\":[");
        for (at, late) in late.iter().enumerate() {
            text.put(if at > 0 { ",{\"at\":" } else { "{\"at\":" }).number(late.at);
            text.put(",\"result\":").put(&late.result).put("}");
        }
        text.put("]");
    }
    text.put("}");
}

/// Gives the output of a task from some place on, as soon as there is some.
pub(super) async fn output(request: &mut Request<'_>, id: Option<TaskId>) -> Answer {
    request.who_may(Act::See).await?;
    let parameters = request.parameters()?;
    let offset = parameters.number("offset", 0, i64::MAX.unsigned_abs())?.unwrap_or(0);
    let wait = parameters.secs("wait", 0, WAIT_SECS_MAX)?.unwrap_or_default();
    let id = id.ok_or_else(Refusal::no_task)?;
    request.activity.parks(wait);
    let dispatcher = &request.dispatch.dispatcher;
    let began = Instant::now();
    let until = began + wait;
    let output = pin!(dispatcher.output(id, offset, OUTPUT_BYTES_MAX, until));
    let (bytes, end, has_ended) = match request.dispatch.unless_closing(output).await {
        Some(output) => output?,
        None => dispatcher.output(id, offset, OUTPUT_BYTES_MAX, Instant::now()).await?,
    };
    request.may_still(Act::See, began).await?;
    if end.next == 0 && dispatcher.task(id).await?.is_none() {
        return Err(Refusal::no_such_task(id));
    }
    let next = offset + bytes.len() as u64;
    let mut answer = answer::raw(bytes);
    let headers = answer.headers_mut();
    let octets = http::HeaderValue::from_static("application/octet-stream");
    headers.insert(http::header::CONTENT_TYPE, octets);
    headers.insert("x-output-next", next.into());
    if has_ended && next >= end.next {
        headers.insert("x-output-end", http::HeaderValue::from_static("1"));
    }
    Ok(answer)
}
