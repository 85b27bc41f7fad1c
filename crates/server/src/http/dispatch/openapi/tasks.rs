//! Tasks that have been sent: how they stand, what they print, and the end of one.

use super::shapes::{Field, Kind};
use super::{
    Content, DELETE, Entry, GET, NO_AGENT, NO_SUCH_TASK, NO_TASK, Operation, Parameter, Refused,
    Success, Topic, Who,
};
use crate::accounts::Act;
use crate::http::dispatch::tasks::{PAGE_MAX, WAIT_SECS_MAX};

pub(super) static TOPIC: Topic =
    Topic { title: "Tasks that have been sent", about: "", entries: &[&TASK, &OUTPUT, &HISTORY] };

const NUMBER_MAX: u64 = i64::MAX as u64;
const STATES: Kind = Kind::OneOf(&["queued", "taken", "done", "cancelled", "expired", "dead"]);
const PATH_ID: Parameter = Parameter::path("id", Kind::Id, "the task's id");

const LATE: Kind = Kind::Object(&[
    Field::new("at", Kind::Time, "when it came"),
    Field::new("result", Kind::Any, "what the agent answered"),
]);

/// A task as it is shown.
const SHOWN: Kind = Kind::Object(&[
    Field::new("id", Kind::Id, "its id"),
    Field::new("agent", Kind::Text, "whom it is for"),
    Field::new("state", STATES, "how it stands"),
    Field::new("priority", Kind::Whole(-100, 100), "higher goes first"),
    Field::new("attempts", Kind::AtLeast(0), "how often it was taken"),
    Field::new("by", Kind::Text, "who sent it"),
    Field::new("enqueued_at", Kind::Time, "when it was sent"),
    Field::maybe("taken_at", Kind::Time, "when it was last taken"),
    Field::maybe("expires_at", Kind::Time, "when it expires if nobody takes it"),
    Field::maybe("ended_at", Kind::Time, "when it ended"),
    Field::maybe("reason", Kind::Text, "why it ended without a result"),
    Field::maybe(
        "body",
        Kind::Any,
        "what was sent; a list leaves it out when it is longer than 4 KiB",
    ),
    Field::maybe(
        "result",
        Kind::Any,
        "what the agent answered; a list leaves it out when it is longer than 4 KiB",
    ),
    Field::maybe(
        "late",
        Kind::List(&LATE),
        "results that came when their claim was no longer held; not in a list",
    ),
]);

pub(super) static TASK: Entry = Entry {
    paths: &["/tasks/{id}"],
    operations: &[
        Operation {
            name: "showTask",
            methods: GET,
            title: "Shows a task, once it has ended if that is asked for.",
            about: "",
            who: Who::May(Act::See),
            parameters: &[
                PATH_ID,
                Parameter::query(
                    "wait",
                    Kind::Whole(0, WAIT_SECS_MAX),
                    "seconds to wait for its end; it is shown then as it stands",
                ),
            ],
            body: None,
            answers: &[Success::json(
                "The task.",
                &[Field::NO_ERROR, Field::new("task", SHOWN, "the task")],
                r#"{"error":false,"task":{"id":"17","agent":"web-1","state":"done","priority":0,"attempts":1,"by":"alice","enqueued_at":1763800000000,"taken_at":1763800000120,"ended_at":1763800001000,"body":{"type":"execute_cmd","cmd":"uptime"},"result":{"status_code":0,"output":"up 3 days\n"}}}"#,
            )],
            refusals: &[NO_TASK, NO_SUCH_TASK],
            example: "/tasks/17?wait=26",
        },
        Operation {
            name: "cancelTask",
            methods: DELETE,
            title: "Cancels a task that has not ended.",
            about: "An agent that works on it is told with its next heartbeat.",
            who: Who::May(Act::Send),
            parameters: &[PATH_ID],
            body: None,
            answers: &[Success::json(
                "It is cancelled.",
                &[
                    Field::NO_ERROR,
                    Field::new("state", Kind::OneOf(&["cancelled"]), "how it stands"),
                ],
                r#"{"error":false,"state":"cancelled"}"#,
            )],
            refusals: &[NO_TASK, Refused::new(409, "Task has ended already", "it has")],
            example: "/tasks/17",
        },
    ],
};

pub(super) static OUTPUT: Entry = Entry {
    paths: &["/tasks/{id}/output"],
    operations: &[Operation {
        name: "taskOutput",
        methods: GET,
        title: "Gives the output of a task from some place on, as soon as there is some.",
        about: "At most 256 KiB come at a time. Begin at 0 and go on at `x-output-next` until `x-output-end` is there.",
        who: Who::May(Act::See),
        parameters: &[
            PATH_ID,
            Parameter::query("offset", Kind::Whole(0, NUMBER_MAX), "the first byte; 0 without it"),
            Parameter::query(
                "wait",
                Kind::Whole(0, WAIT_SECS_MAX),
                "seconds to wait for more; 0 without it",
            ),
        ],
        body: None,
        answers: &[Success {
            status: 200,
            when: "The bytes; none when there are no more in time.",
            content: Content::Bytes,
            headers: &[
                Field::new(
                    "x-output-next",
                    Kind::Whole(0, NUMBER_MAX),
                    "where the next bytes begin",
                ),
                Field::maybe(
                    "x-output-end",
                    Kind::OneOf(&["1"]),
                    "the task has ended and nothing follows",
                ),
            ],
            example: "up 3 days\n",
        }],
        refusals: &[NO_TASK, NO_SUCH_TASK],
        example: "/tasks/17/output?offset=0&wait=26",
    }],
};

pub(super) static HISTORY: Entry = Entry {
    paths: &["/tasks_history"],
    operations: &[Operation {
        name: "listTasks",
        methods: GET,
        title: "Gives a page of tasks, the newest first.",
        about: "",
        who: Who::May(Act::See),
        parameters: &[
            Parameter::query("agent", Kind::Text, "those of this agent alone"),
            Parameter::query("state", STATES, "those that stand so alone"),
            Parameter::query(
                "before",
                Kind::Whole(0, NUMBER_MAX),
                "those with a smaller id: `next` of the page before",
            ),
            Parameter::query(
                "limit",
                Kind::Whole(1, PAGE_MAX as u64),
                "at most so many; 100 without it",
            ),
        ],
        body: None,
        answers: &[Success::json(
            "The page.",
            &[
                Field::NO_ERROR,
                Field::new("tasks", Kind::List(&SHOWN), "as `GET /tasks/{id}` shows them"),
                Field::new(
                    "next",
                    Kind::Nullable(&Kind::Id),
                    "what the next page has as `before`; `null` when there is none",
                ),
            ],
            r#"{"error":false,"tasks":[{"id":"18","agent":"web-2","state":"queued","priority":0,"attempts":0,"by":"alice","enqueued_at":1763800002000,"body":{"type":"proclist"}}],"next":"18"}"#,
        )],
        refusals: &[
            NO_AGENT,
            Refused::new(
                400,
                "'state' must be queued, taken, done, cancelled, expired or dead",
                "it is something else",
            ),
        ],
        example: "/tasks_history?limit=1",
    }],
};
