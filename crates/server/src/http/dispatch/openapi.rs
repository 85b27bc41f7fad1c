//! What the dispatch routes are, in one table, and the two texts made from it: an OpenAPI description, which
//! `GET /openapi.json` gives, and a page for people.
//!
//! Invariant: no endpoint is without its entry: the tests match all of them, and an entry that is in no topic is
//! dead code. Limits are the constants that the routes themselves check.
//! Not here: what any route does.

mod agents;
mod document;
mod events;
mod files;
mod later;
mod later_tasks;
mod page;
mod schema;
mod sending;
mod server;
mod sessions;
mod shapes;
mod taking;
mod tasks;
mod webhooks;

use std::sync::LazyLock;

use bytes::Bytes;

use super::{Answer, answer};
use crate::accounts::Act;
use shapes::{Field, Kind};

/// Everything that is described, in the order of the page.
static TOPICS: &[&Topic] = &[
    &sessions::TOPIC,
    &agents::TOPIC,
    &sending::TOPIC,
    &tasks::TOPIC,
    &taking::TOPIC,
    &events::TOPIC,
    &webhooks::TOPIC,
    &files::TOPIC,
    &server::TOPIC,
    &later::TOPIC,
    &later_tasks::TOPIC,
];

/// The page for people, `docs/dispatch-protocol.md`.
#[must_use]
pub fn page() -> String {
    page::text()
}

/// Gives the description, which is the same for everybody.
pub(super) fn description() -> Answer {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document::document().to_string().into());
    Ok(answer::raw(TEXT.clone()))
}

/// Entries that belong together.
struct Topic {
    title: &'static str,
    about: &'static str,
    entries: &'static [&'static Entry],
}

/// What answers at a path.
struct Entry {
    /// Its spellings, the one to prefer first.
    paths: &'static [&'static str],
    operations: &'static [Operation],
}

/// What one method does there, or several that do the same.
#[derive(Clone, Copy)]
struct Operation {
    /// Its name in programs that are made from the description.
    name: &'static str,
    methods: &'static [&'static str],
    /// What it does, in one line.
    title: &'static str,
    about: &'static str,
    who: Who,
    parameters: &'static [Parameter],
    body: Option<Payload>,
    /// What it answers when it is not refused.
    answers: &'static [Success],
    refusals: &'static [Refused],
    /// Path and query of a request.
    example: &'static str,
}

/// Who may ask.
#[derive(Clone, Copy)]
enum Who {
    Anyone,
    /// Whoever shows something in `Authorization`, right or wrong.
    Shown,
    May(Act),
}

/// Where a parameter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Query,
    Header,
}

/// What follows when a parameter is not there.
#[derive(Clone, Copy)]
enum Absent {
    /// Nothing: it may be left out.
    Fine,
    /// 400 `Missing NAME parameter`.
    Missing,
    /// Another refusal, which the operation names.
    Refused,
}

#[derive(Clone, Copy)]
struct Parameter {
    place: Place,
    name: &'static str,
    absent: Absent,
    kind: Kind,
    about: &'static str,
}

impl Parameter {
    const fn query(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { place: Place::Query, name, absent: Absent::Fine, kind, about }
    }

    const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { place: Place::Query, name, absent: Absent::Missing, kind, about }
    }

    const fn path(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { place: Place::Path, name, absent: Absent::Refused, kind, about }
    }

    const fn is_needed(&self) -> bool {
        !matches!(self.absent, Absent::Fine)
    }
}

/// What a request carries.
#[derive(Clone, Copy)]
struct Payload {
    is_needed: bool,
    content: Content,
    about: &'static str,
    example: &'static str,
}

/// The form of a body.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Json(Kind),
    /// JSON, or the same fields in a form.
    JsonOrForm(Kind),
    Text(Kind),
    Bytes,
    /// Server-sent events.
    Stream,
}

/// An answer that is no refusal.
#[derive(Clone, Copy)]
struct Success {
    status: u16,
    when: &'static str,
    content: Content,
    headers: &'static [Field],
    example: &'static str,
}

impl Success {
    /// A JSON object.
    const fn json(when: &'static str, fields: &'static [Field], example: &'static str) -> Self {
        let content = Content::Json(Kind::Object(fields));
        Self { status: 200, when, content, headers: &[], example }
    }

    /// No body.
    const fn empty(when: &'static str) -> Self {
        Self { status: 200, when, content: Content::Nothing, headers: &[], example: "" }
    }

    /// `{"error":false}`.
    const fn ok(when: &'static str) -> Self {
        Self::json(when, &[Field::NO_ERROR], r#"{"error":false}"#)
    }
}

/// A refusal: `{"error": true, "msg": …}` with this status.
#[derive(Clone, Copy)]
struct Refused {
    status: u16,
    message: &'static str,
    when: &'static str,
}

impl Refused {
    const fn new(status: u16, message: &'static str, when: &'static str) -> Self {
        Self { status, message, when }
    }
}

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
const DELETE: &[&str] = &["DELETE"];
const PATCH: &[&str] = &["PATCH"];

const INVALID_JSON: Refused = Refused::new(400, "Invalid JSON", "the body is no JSON value");
const NO_AGENT: Refused = Refused::new(404, "Agent 'web-9' doesn't exist", "no agent has the name");
const NO_TASK: Refused =
    Refused::new(404, "Task doesn't exist", "the id is no number, or no task has it");
const NO_SUCH_TASK: Refused = Refused::new(404, "Task 999 doesn't exist", "no task has the number");
const NO_FILE: Refused = Refused::new(
    404,
    "File doesn't exist, has expired or is used up",
    "there is no such file, or no longer",
);
const NAME_TAKEN: Refused = Refused::new(
    409,
    "The name is taken by another account",
    "an account of any role has the name",
);
const NAME_LONG: Refused = Refused::new(400, "A name has at most 255 bytes", "the name is longer");
const NAME_FORBIDDEN: Refused =
    Refused::new(400, "A name must not contain ':' or control characters", "the name holds one");
const NAME_EMPTY: Refused = Refused::new(400, "A name must not be empty", "the name is empty");
const TASK_ID: Refused = Refused::new(400, "Non-numeric task id", "`id` is no task's id");
const CLAIM: Refused = Refused::new(400, "Non-numeric claim", "`claim` is no number");
const CROWDED: Refused = Refused::new(
    503,
    "Too many passwords are being checked; try again",
    "thousands of passwords wait to be verified",
);

const UNAUTHORIZED: Refused =
    Refused::new(403, "Authorization failure", "nobody is shown, or one who may not");
const TOO_MANY: Refused = Refused::new(
    429,
    "Too many attempts; wait before the next",
    "too many wrong authorizations; `Retry-After` says when to try again",
);
const SLOW_BODY: Refused = Refused::new(
    408,
    "the body did not arrive in time ([limits] body_timeout_secs)",
    "the body stopped coming",
);
const LONG_BODY: Refused = Refused::new(
    413,
    "the body is longer than 16777216 bytes ([limits] body_bytes_max)",
    "the body is longer than the server takes",
);
const STORE: Refused = Refused::new(
    503,
    "The store is unavailable",
    "the database is locked, full, damaged or not to be written, or the server is crowded",
);

impl Operation {
    /// Every refusal but 405: those that are its own, and those that follow from what it takes.
    fn all_refusals(&self) -> Vec<(u16, String, String)> {
        let own = |it: &Refused| (it.status, it.message.to_owned(), it.when.to_owned());
        let mut all = Vec::new();
        let mut add = |status, message: &str, when: &str| {
            all.push((status, message.to_owned(), when.to_owned()));
        };
        if matches!(self.who, Who::May(_)) {
            add(403, UNAUTHORIZED.message, UNAUTHORIZED.when);
            add(429, TOO_MANY.message, TOO_MANY.when);
        }
        for parameter in self.parameters.iter().filter(|it| it.place == Place::Query) {
            let name = parameter.name;
            if matches!(parameter.absent, Absent::Missing) {
                add(400, &format!("Missing {name} parameter"), "it is not there, or empty");
            }
            if let Kind::Whole(least, greatest) = parameter.kind {
                let message = format!("'{name}' must be a whole number from {least} to {greatest}");
                add(400, &message, "it is another");
            }
        }
        if let Some(first) = self.parameters.iter().find(|it| it.place == Place::Query) {
            let message = format!("Duplicate parameter '{}'", first.name);
            add(400, &message, "a parameter is there twice");
        }
        all.extend(self.refusals.iter().map(own));
        if self.body.is_some() {
            all.push(own(&SLOW_BODY));
            // How long a file may be is another matter.
            if !all.iter().any(|(status, ..)| *status == 413) {
                all.push(own(&LONG_BODY));
            }
        }
        if !matches!(self.who, Who::Anyone) || self.body.is_some() {
            all.push(own(&STORE));
        }
        all.sort_by_key(|(status, ..)| *status);
        all
    }
}

#[cfg(test)]
mod tests;
