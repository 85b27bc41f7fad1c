//! `/tasks`: an operator sends, an agent takes.

use super::shapes::{Field, Kind};
use super::taking::POLL;
use super::{
    Content, Entry, INVALID_JSON, NO_AGENT, Operation, POST, Parameter, Payload, Refused, Success,
    Topic, Who,
};
use crate::accounts::Act;
use crate::http::dispatch::sending::{RETRIES_MAX, TTL_SECS_MAX};
use crate::http::dispatch::tasks::WAIT_SECS_MAX;

pub(super) static TOPIC: Topic = Topic {
    title: "Sending and taking tasks",
    about: "A task and its result are JSON values, kept as they came. `POST /tasks` waits for the result unless it is told not to.",
    entries: &[&TASKS],
};

const ID: Field = Field::new("id", Kind::Id, "the task's id");

/// One of several targets.
const RESULT: Kind = Kind::Object(&[
    Field::new("target", Kind::Text, "the agent's name"),
    Field::maybe("id", Kind::Id, "the task's id, where there is a task"),
    Field::new("error", Kind::Bool, "whether there is no result"),
    Field::maybe("result", Kind::Any, "what the agent has answered"),
    Field::maybe("timeout", Kind::Is(true), "the time to wait is over; the task stays"),
    Field::maybe("msg", Kind::Text, "why there is no result"),
]);

pub(super) const QUEUE_FULL: Refused = Refused::new(
    429,
    "Queue is overflowed. Check agent.",
    "`[tasks] queue_max` tasks wait for the agent; `Retry-After` says when to try again",
);

pub(super) static TASKS: Entry = Entry {
    paths: &["/tasks"],
    operations: &[
        POLL,
        Operation {
            name: "sendTask",
            methods: POST,
            title: "Sends a task to an agent, or to several, and waits for what they answer.",
            about: "A target that is an agent's name means that agent, whatever is in it. Otherwise it is names with commas \
                    between them; one that ends in `*` is every agent that begins so. At most 20000 agents are meant at once. \
                    With several targets each has a result of its own, in order, and none of them is a refusal of the whole.",
            who: Who::May(Act::Send),
            parameters: &[
                Parameter::needed(
                    "target",
                    Kind::Text,
                    "whom it is for: `web-1`, `web-1,web-2` or `web*`",
                ),
                Parameter::query(
                    "timeout",
                    Kind::Whole(0, WAIT_SECS_MAX),
                    "seconds to wait for results; without it `[tasks] wait_secs` (26)",
                ),
                Parameter::query("noWait", Kind::Switch, "answers as soon as the task is stored"),
                Parameter::query(
                    "priority",
                    Kind::Whole(-100, 100),
                    "higher goes first; 0 without it",
                ),
                Parameter::query(
                    "ttl",
                    Kind::Whole(0, TTL_SECS_MAX),
                    "seconds after which a task that nobody took has expired; 0 is no limit, as without it",
                ),
                Parameter::query(
                    "retries",
                    Kind::Whole(0, RETRIES_MAX as u64),
                    "how often it may come again to an agent that took it with a lease; without it `[tasks] attempts_max` (5) counts",
                ),
            ],
            body: Some(Payload {
                is_needed: true,
                content: Content::Json(Kind::Any),
                about: "The task: any JSON value.",
                example: r#"{"type":"execute_cmd","cmd":"uptime"}"#,
            }),
            answers: ANSWERS,
            refusals: &[
                INVALID_JSON,
                Refused::new(400, "More than 20000 targets", "too many agents are meant"),
                NO_AGENT,
                Refused::new(
                    409,
                    "Task was cancelled",
                    "it was, before there was a result; `id` is there",
                ),
                Refused::new(
                    409,
                    "Task expired before its agent took it",
                    "its `ttl` passed; `id` is there",
                ),
                Refused::new(
                    409,
                    "Task was given up: its agent took it and never answered",
                    "it was taken too often; `id` is there",
                ),
                Refused::new(409, "Agent deregistered", "the agent was removed; `id` is there"),
                QUEUE_FULL,
            ],
            example: "/tasks?target=web-1",
        },
    ],
};

const ANSWERS: &[Success] = &[
    Success::json(
        "The result of the one target.",
        &[Field::NO_ERROR, Field::new("result", Kind::Any, "what the agent has answered"), ID],
        r#"{"error":false,"result":{"status_code":0,"output":"up 3 days\n"},"id":"17"}"#,
    ),
    Success::json(
        "The time to wait is over; the task stays, and will be delivered.",
        &[
            Field::NO_ERROR,
            Field::new("result", Kind::Null, "there is none"),
            Field::new("timeout", Kind::Is(true), "tells it from a result of `null`"),
            ID,
        ],
        r#"{"error":false,"result":null,"timeout":true,"id":"17"}"#,
    ),
    Success::json(
        "With `noWait=1` and one target.",
        &[Field::NO_ERROR, Field::new("msg", Kind::Text, "`Task enqueued`"), ID],
        r#"{"error":false,"msg":"Task enqueued","id":"17"}"#,
    ),
    Success::json(
        "Results of several targets.",
        &[
            Field::NO_ERROR,
            Field::new("results", Kind::List(&RESULT), "one for each target, in order"),
        ],
        r#"{"error":false,"results":[{"target":"web-1","id":"17","error":false,"result":{}},{"target":"web-2","id":"18","error":true,"timeout":true,"msg":"Time out while waiting for task result"},{"target":"web-9","error":true,"msg":"Agent 'web-9' doesn't exist"}]}"#,
    ),
    Success::json(
        "With `noWait=1` and several targets.",
        &[
            Field::NO_ERROR,
            Field::new("msg", Kind::Text, "`Tasks enqueued`"),
            Field::new("ids", Kind::Map(&Kind::Id), "by agent: its task's id"),
            Field::maybe("failed", Kind::Map(&Kind::Text), "by name: why there is no task"),
        ],
        r#"{"error":false,"msg":"Tasks enqueued","ids":{"web-1":"17"},"failed":{"web-9":"Agent 'web-9' doesn't exist"}}"#,
    ),
];
