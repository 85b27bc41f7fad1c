//! `POST /machines`: a machine, at once or with news of how far it is.
//!
//! Invariant: who leaves before the answer was taken leaves no machine behind.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use machines::manager::{Handover, Pending, Step};
use machines::{Lent, Machines, Order};
use plugins::call::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::refusal::Refusal;
use super::{Answer, Request, shown, who};
use crate::http::cargo::Freight;

/// What is asked for.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected an object")]
struct Wish {
    image: Option<String>,
    memory: Option<u32>,
    vcpus: Option<u32>,
    ttl: Option<u64>,
    ssh_public_key: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What the answer says beside the machine.
#[derive(Debug, Clone)]
struct Place {
    host: String,
    gateway_port: Option<u16>,
}

/// Lends a machine.
pub(super) async fn create(request: &mut Request<'_>) -> Answer {
    let caller = who::changes(request).await?;
    let wish: Wish = request.json().await?;
    let order = Order {
        image: wish.image,
        memory_mb: wish.memory,
        vcpus: wish.vcpus,
        ttl: wish.ttl.map(Duration::from_secs),
        ssh_public_key: wish.ssh_public_key,
        labels: wish.labels,
        owner: caller.counts_as,
    };
    let place = Place { host: host(request), gateway_port: request.lending.gateway_port() };
    let machines = request.machines().clone();
    // Limits and mistakes are told by a status, also to who wants news.
    let pending = machines.order(order).await?;
    if wants_news(request) {
        return Ok(news(machines, pending, place));
    }
    let (lent, body) = finish(&machines, pending, &place).await?;
    let id = lent.id;
    let mut response = Response::new(Body::full(Bytes::from(body.to_string())));
    Freight::put_machine(lent.handover, &mut response);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = HeaderValue::from_str(&format!("/machines/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The name by which the client knows this server, for `ssh`.
fn host(request: &Request<'_>) -> String {
    let host = request.head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
    .trim_matches(['[', ']'])
    .to_owned()
}

fn wants_news(request: &Request<'_>) -> bool {
    let accept = request.head.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

async fn finish(
    machines: &Machines,
    mut pending: Pending,
    place: &Place,
) -> Result<(Lent, Value), Refusal> {
    pending.start().await?;
    pending.set_up().await?;
    let lent = pending.finish().await?;
    let summary = machines.show(lent.id)?;
    let body = shown::lent(&lent, &summary, &place.host, place.gateway_port);
    Ok((lent, body))
}

type Work = Pin<Box<dyn Future<Output = Result<(Lent, Value), Refusal>> + Send>>;

/// An answer that tells each step as it is made, and the machine last. Dropped before that, it undoes everything.
struct News {
    work: Option<Work>,
    steps: mpsc::UnboundedReceiver<Bytes>,
    /// What ends it, until it is taken; and the machine, if that is what it tells of.
    last: Option<(Bytes, Option<Handover>)>,
    /// The machine that the last piece told of, until that piece was taken and the end is asked for.
    telling: Option<Handover>,
}

fn news(machines: Machines, pending: Pending, place: Place) -> Response<Body> {
    // A machine has a handful of steps; more cannot wait.
    let (tell, steps) = mpsc::unbounded_channel();
    let mut reached = pending.steps();
    reached.mark_changed();
    let work: Work = Box::pin(async move {
        let telling = async {
            while reached.changed().await.is_ok() {
                let step: Step = *reached.borrow_and_update();
                if step != Step::Ready {
                    // The other end is beside this one, in the same answer.
                    let _ = tell.send(event("step", &json!({ "step": step })));
                }
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            never = telling => match never {},
            done = finish(&machines, pending, &place) => done,
        }
    });
    let news = News { work: Some(work), steps, last: None, telling: None };
    let mut response = Response::new(Body::Stream(news.boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies like nginx would wait for more before they pass on anything.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A server-sent event. JSON has no bare line ends, which would end the field.
fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// What ends the news.
fn last(outcome: Result<(Lent, Value), Refusal>) -> (Bytes, Option<Handover>) {
    match outcome {
        Ok((lent, body)) => (event("machine", &body), Some(lent.handover)),
        Err(refusal) => (event("error", &refusal.value()), None),
    }
}

impl http_body::Body for News {
    type Data = Bytes;
    type Error = plugins::call::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // First, since it is what puts steps into the queue.
        if let Some(work) = &mut self.work
            && let Poll::Ready(outcome) = work.as_mut().poll(cx)
        {
            self.work = None;
            self.last = Some(last(outcome));
        }
        if let Poll::Ready(Some(step)) = self.steps.poll_recv(cx) {
            return Poll::Ready(Some(Ok(Frame::data(step))));
        }
        if let Some((text, handover)) = self.last.take() {
            self.telling = handover;
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        if self.work.is_some() {
            return Poll::Pending;
        }
        if let Some(handover) = self.telling.take() {
            handover.told();
        }
        Poll::Ready(None)
    }
}
