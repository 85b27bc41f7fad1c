//! `/tasks` and `/task_result` of the later protocol: tasks and results are objects.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use ::tasks::dispatcher::{CancelError, Dispatcher};
use ::tasks::task::{Ending, Outcome};
use ::tasks::{AgentId, TaskId};
use bytes::Bytes;
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::answer::{self, Text};
use super::super::refusal::Refusal;
use super::super::sending::{Came, Order, Sent, TARGETS_MAX, come, message, send_all};
use super::super::tasks::WAIT_SECS_MAX;
use super::super::{Answer, Request, agent_of};
use super::object::Object;
use crate::accounts::{Accounts, Act};
use crate::http::cargo::Freight;

/// Gives an agent its next task, as soon as there is one.
pub(super) async fn poll(request: &mut Request<'_>) -> Answer {
    let identity = request.who_may(Act::Serve).await?;
    let wait = request.dispatch.config.wait;
    request.park(wait);
    let dispatcher = &request.dispatch.dispatcher;
    let poll = pin!(dispatcher.poll(agent_of(&identity), 1, None, Instant::now() + wait));
    let deliveries = request.dispatch.unless_closing(poll).await.unwrap_or(Ok(Vec::new()))?;
    let mut answer = match deliveries.first() {
        Some(delivery) => answer::raw(bare(delivery.task(), delivery.body())),
        None => answer::raw(&b"{}"[..]),
    };
    Freight::put(deliveries, &mut answer);
    Ok(answer)
}

/// A task with its number in it. One that was sent otherwise and is no object stands in one of its own.
fn bare(id: TaskId, body: &[u8]) -> Bytes {
    let mut text = Text::new("{\"id\":", body.len() + 24);
    text.number(id.0);
    match Object::parse(body) {
        Some(task) => task.put(&mut text, "id"),
        None => drop(text.put(",\"task\":").put(body)),
    }
    text.put("}").take()
}

/// Takes an agent's result.
pub(super) async fn result(request: &mut Request<'_>) -> Answer {
    let agent = agent_of(&request.who_may(Act::Serve).await?);
    let task = request.parameters()?.task()?;
    let body = request.json("Invalid JSON passed in body").await?;
    let result = said(&body).ok_or_else(|| Refusal::bad("A result must be a JSON object"))?;
    // Old agents repeat themselves, so all that becomes of it is one answer.
    request.dispatch.dispatcher.complete(agent, task, None, result).await?;
    Ok(answer::empty())
}

/// A result that says whether it is an error.
fn said(body: &Bytes) -> Option<Bytes> {
    let result = Object::parse(body)?;
    if result.get("error").is_some() {
        return Some(body.clone());
    }
    let mut text = Text::new("{\"error\":false", body.len());
    result.put(&mut text, "error");
    Some(text.put("}").take())
}

/// Sends a task to one or several agents, and waits for all of them.
pub(super) async fn send(request: &mut Request<'_>) -> Answer {
    let by = request.who_may(Act::Send).await?.name;
    let parameters = request.parameters()?;
    let wait = parameters.secs("timeout", 0, WAIT_SECS_MAX)?;
    let wait = wait.unwrap_or(request.dispatch.config.wait);
    let targets = targets(&request.dispatch.accounts, parameters.need("target")?)?;
    drop(parameters);
    let body = request.json("Invalid JSON").await?;
    let task = Object::parse(&body);
    if !task.is_some_and(|task| task.get("type").is_some_and(|it| it.starts_with('"'))) {
        return Err(Refusal::bad("Task type missing: a task is an object with a text as 'type'"));
    }
    request.activity.parks(wait);
    let began = Instant::now();
    let order = Order { body, priority: 0, ttl_secs: None, attempts_max: None, by };
    let sent = send_all(request, &order, targets).await;
    drop(order);
    let answer = results(request, sent, began + wait).await;
    request.may_still(Act::Send, began).await?;
    answer
}

type Target = (Arc<str>, Option<AgentId>);

/// Agents by their names, in order; one that stands there twice is sent the task once.
fn targets(accounts: &Accounts, list: &str) -> Result<Vec<Target>, Refusal> {
    let named = |name: &str| match accounts.agent(name) {
        Some(agent) => (agent.name, Some(AgentId(agent.account.0))),
        None => (name.into(), None),
    };
    // A name may hold a comma.
    if accounts.agent(list).is_some() {
        return Ok(vec![named(list)]);
    }
    let mut seen = HashSet::new();
    let names: Vec<&str> = list.split(',').filter(|name| seen.insert(*name)).collect();
    if names.len() > TARGETS_MAX {
        return Err(Refusal::bad(format!("More than {TARGETS_MAX} targets")));
    }
    Ok(names.into_iter().map(named).collect())
}

/// What became of each; a task that was not taken in time is cancelled.
async fn results(request: &Request<'_>, mut sent: Vec<Sent>, until: Instant) -> Answer {
    let is_down = |(_, sent): &Sent| matches!(sent, Err(refusal) if refusal.status() == StatusCode::SERVICE_UNAVAILABLE);
    if sent.iter().all(is_down)
        && let Some((_, Err(refusal))) = sent.pop()
    {
        return Err(refusal);
    }
    let mut text = Text::new("{\"error\":false,\"results\":[", 128 * sent.len());
    let mut cancelling = JoinSet::new();
    for (at, (name, outcome)) in sent.into_iter().enumerate() {
        text.put(if at > 0 { ",{\"target\":" } else { "{\"target\":" }).string(&name);
        match outcome {
            Err(refusal) if refusal.status() == StatusCode::NOT_FOUND => {
                failed(&mut text, "Agent doesn't exists");
            }
            Err(refusal) => failed(&mut text, refusal.message()),
            Ok((id, ended)) => match come(request.dispatch, ended, until).await {
                Came::Ended(ending) => put_ending(&mut text, &ending),
                Came::AgentGone => failed(&mut text, "Agent deregistered"),
                Came::TimedOut => {
                    cancelling.spawn(cancel(request.dispatch.dispatcher.clone(), id));
                    failed(&mut text, "Time out while waiting for task result");
                }
            },
        }
        text.put("}");
    }
    // Whoever is told of the time-out may count on it that nobody does the task any more.
    while cancelling.join_next().await.is_some() {}
    Ok(text.put("]}").answer())
}

fn failed(text: &mut Text, message: &str) {
    text.put(",\"error\":true,\"msg\":").string(message);
}

fn put_ending(text: &mut Text, ending: &Ending) {
    let (Some(result), Outcome::Done) = (&ending.result, ending.outcome) else {
        return failed(text, message(ending.outcome));
    };
    match Object::parse(result) {
        Some(object) => {
            if object.get("error").is_none() {
                text.put(",\"error\":false");
            }
            object.put(text, "target");
        }
        // An agent that speaks the other protocol may answer with anything.
        None => drop(text.put(",\"error\":false,\"result\":").put(result)),
    }
}

async fn cancel(dispatcher: Dispatcher, id: TaskId) {
    match dispatcher.cancel(id, "its result was not waited for any longer", true, None).await {
        // Its agent has it, or has just answered.
        Ok(()) | Err(CancelError::Ended | CancelError::Unknown) => {}
        Err(CancelError::Store(error)) => {
            tracing::warn!(task = id.0, "not cancelled after its time-out: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_task_carries_its_number() {
        let check = |body: &str, expected: &str| {
            assert_eq!(bare(TaskId(17), body.as_bytes()), expected, "{body}");
        };
        check(r#"{"type":"x","n":1e400}"#, r#"{"id":17,"type":"x","n":1e400}"#);
        check(r#"{"id":"mine","type":"x"}"#, r#"{"id":17,"type":"x"}"#);
        check("{}", r#"{"id":17}"#);
        check("[1]", r#"{"id":17,"task":[1]}"#);
    }

    #[test]
    fn a_result_says_whether_it_is_an_error() {
        let check = |body: &'static str, expected: Option<&str>| {
            let found = said(&Bytes::from_static(body.as_bytes()));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{body}");
        };
        check("{}", Some(r#"{"error":false}"#));
        check(r#"{"procs":[]}"#, Some(r#"{"error":false,"procs":[]}"#));
        check(r#"{"error":true,"msg":"no"}"#, Some(r#"{"error":true,"msg":"no"}"#));
        check("[]", None);
    }

    #[test]
    fn a_result_is_shown_with_its_target() {
        let check = |outcome, result: Option<&'static str>, expected: &str| {
            let mut text = Text::new("{\"target\":\"a\"", 0);
            let ending = Ending {
                task: TaskId(1),
                outcome,
                attempts: 1,
                taken_at: None,
                ended_at: 0,
                reason: None,
                result: result.map(Bytes::from),
            };
            put_ending(&mut text, &ending);
            assert_eq!(text.put("}").take(), expected);
        };
        use Outcome::{Cancelled, Done};
        let of = |rest: &str| format!("{{\"target\":\"a\",{rest}}}");
        check(Done, Some(r#"{"n":1.0}"#), &of(r#""error":false,"n":1.0"#));
        check(Done, Some(r#"{"error":true,"target":"b"}"#), &of(r#""error":true"#));
        check(Done, Some("[1]"), &of(r#""error":false,"result":[1]"#));
        check(Cancelled, None, &of(r#""error":true,"msg":"Task was cancelled""#));
    }
}
