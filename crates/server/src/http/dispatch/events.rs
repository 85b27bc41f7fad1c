//! `/events`: what agents report, and what was reported.

use ::tasks::store::EventQuery;
use ::tasks::{AgentId, EventId};
use http::Method;

use super::refusal::Refusal;
use super::{Answer, Request, agent_of, answer};
use crate::accounts::Act;

/// Keeps an event of an agent, or gives those of one.
pub(super) async fn events(request: &mut Request<'_>) -> Answer {
    if request.is(&Method::GET) { list(request).await } else { log(request).await }
}

async fn log(request: &mut Request<'_>) -> Answer {
    let agent = agent_of(&request.who_may(Act::Serve).await?);
    request.parameters()?;
    let event = request.json("Invalid JSON").await?;
    request.dispatch.dispatcher.log_event(agent, event).await?;
    // The event may have been long on its way.
    if request.dispatch.forget_if_gone(agent).await {
        return Err(Refusal::unauthorized());
    }
    Ok(answer::raw(&b"{\"error\":false,\"msg\":\"Event logged\"}"[..]))
}

async fn list(request: &Request<'_>) -> Answer {
    request.who_may(Act::See).await?;
    let parameters = request.parameters()?;
    let name = parameters.need("agent")?;
    let events_max = request.dispatch.config.events_max;
    let after = parameters.number("after", 0, i64::MAX.unsigned_abs())?;
    let limit = parameters.number("limit", 1, events_max)?.unwrap_or(events_max);
    let has_details = parameters.is_on("details");
    // As it always was, an agent that does not exist has no events.
    let events = match request.dispatch.accounts.agent(name) {
        None => Vec::new(),
        Some(agent) => {
            let query = EventQuery {
                agent: Some(AgentId(agent.account.0)),
                after: EventId(after.unwrap_or(0)),
                limit,
                // Without a place to go on from the newest are meant.
                newest: after.is_none(),
            };
            request.dispatch.dispatcher.events(query).await?
        }
    };
    let room = events.iter().map(|event| event.body.len() + 1).sum::<usize>() + 64;
    let mut text = answer::Text::new("{\"error\":false,\"events\":[", room);
    for (at, event) in events.iter().enumerate() {
        text.put(if at > 0 { "," } else { "" }).put(&event.body);
    }
    text.put("],\"max_size\":").number(events_max as u64);
    if has_details {
        text.put(",\"details\":[");
        for (at, event) in events.iter().enumerate() {
            text.put(if at > 0 { "," } else { "" });
            text.put("{\"id\":\"").number(event.id.0).put("\",\"at\":").number(event.at);
            text.put(",\"event\":").put(&event.body).put("}");
        }
        text.put("]");
    }
    Ok(text.put("}").answer())
}
