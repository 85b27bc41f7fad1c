//! What an agent does with a task: it takes, extends, tells output and result.

use super::shapes::{Field, Kind};
use super::{
    CLAIM, Content, Entry, Operation, POST, Parameter, Payload, Refused, Success, TASK_ID, Topic,
    Who,
};
use crate::accounts::Act;
use crate::http::dispatch::tasks::{POLL_SECS_MAX, POLL_TASKS_MAX};
use ::tasks::dispatcher::LEASE_SECS_MAX;

pub(super) static TOPIC: Topic =
    Topic { title: "Working on a task", about: "", entries: &[&RESULT, &LEASE, &OUTPUT] };

pub(super) const AGENT: Who = Who::May(Act::Serve);
pub(super) const GONE: Refused =
    Refused::new(403, "Agent deregistered", "the agent was removed while it waited");
const NUMBER_MAX: u64 = i64::MAX as u64;

const ID: Parameter = Parameter::needed("id", Kind::Id, "the task's id");
const EVENTS: Field =
    Field::new("events", Kind::Map(&Kind::Any), "by id: tasks; empty when there were none in time");

pub(super) const POLL: Operation = Operation {
    name: "takeTasks",
    methods: &["GET"],
    title: "Gives an agent its next tasks, as soon as there are some.",
    about: "Without `lease` a task is the agent's once it is written to a live connection; with it the task comes again unless \
            its result or a heartbeat arrives in time. HEAD is refused: it would take a task and throw it away.",
    who: AGENT,
    parameters: &[
        Parameter::query(
            "wait",
            Kind::Whole(0, POLL_SECS_MAX),
            "seconds to wait for a task; without it `[tasks] wait_secs` (26)",
        ),
        Parameter::query(
            "max",
            Kind::Whole(1, POLL_TASKS_MAX as u64),
            "tasks to be given at most; 1 without it",
        ),
        Parameter::query(
            "lease",
            Kind::Whole(1, LEASE_SECS_MAX),
            "seconds until the tasks come again",
        ),
    ],
    body: None,
    answers: &[
        Success::json(
            "Tasks without a lease.",
            &[Field::NO_ERROR, EVENTS],
            r#"{"error":false,"events":{"17":{"type":"execute_cmd","cmd":"uptime"}}}"#,
        ),
        Success::json(
            "Tasks with a lease.",
            &[
                Field::NO_ERROR,
                EVENTS,
                Field::new(
                    "claims",
                    Kind::Map(&Kind::Id),
                    "by task: what heartbeat, output and result send back as `claim`",
                ),
                Field::new("lease", Kind::Whole(1, LEASE_SECS_MAX), "seconds that it lasts"),
            ],
            r#"{"error":false,"events":{"17":{"type":"proclist"}},"claims":{"17":"4"},"lease":60}"#,
        ),
    ],
    refusals: &[GONE],
    example: "/tasks?lease=60",
};

pub(super) const NO_JSON_RESULT: Refused =
    Refused::new(400, "Invalid JSON passed in body", "the body is no JSON value");

pub(super) static RESULT: Entry = Entry {
    paths: &["/tasks_result", "/task_result"],
    operations: &[Operation {
        name: "reportResult",
        methods: POST,
        title: "Reports the result of a task.",
        about: "The first result counts. Without a claim one that comes late, or for a task that is unknown or another agent's, \
                is answered 200 and changes nothing.",
        who: AGENT,
        parameters: &[
            ID,
            Parameter::query("claim", Kind::Id, "the claim that came with the task's lease"),
        ],
        body: Some(Payload {
            is_needed: true,
            content: Content::Json(Kind::Any),
            about: "The result: any JSON value.",
            example: r#"{"status_code":0,"output":"up 3 days\n"}"#,
        }),
        answers: &[Success::empty("The result is stored.")],
        refusals: &[
            TASK_ID,
            CLAIM,
            NO_JSON_RESULT,
            Refused::new(
                409,
                "The claim is no longer held; the result was kept as a late one",
                "the lease was over, or another result came first",
            ),
        ],
        example: "/tasks_result?id=17",
    }],
};

pub(super) static LEASE: Entry = Entry {
    paths: &["/tasks_lease"],
    operations: &[Operation {
        name: "extendLease",
        methods: POST,
        title: "Tells that the agent still works on a task that it took with a lease.",
        about: "",
        who: AGENT,
        parameters: &[
            ID,
            Parameter::needed("claim", Kind::Id, "the claim that came with the lease"),
            Parameter::query(
                "lease",
                Kind::Whole(1, LEASE_SECS_MAX),
                "seconds from now on; without it as long as the last one",
            ),
        ],
        body: None,
        answers: &[Success::json(
            "The lease goes on.",
            &[
                Field::NO_ERROR,
                Field::new(
                    "lease",
                    Kind::Whole(1, LEASE_SECS_MAX),
                    "seconds that it lasts from now on",
                ),
            ],
            r#"{"error":false,"lease":60}"#,
        )],
        refusals: &[
            TASK_ID,
            CLAIM,
            Refused::new(
                409,
                "The claim is no longer held",
                "the lease was over, the task has ended, or it is another agent's",
            ),
            Refused::new(409, "Task was cancelled", "it was: the agent may stop"),
        ],
        example: "/tasks_lease?id=17&claim=4",
    }],
};

pub(super) static OUTPUT: Entry = Entry {
    paths: &["/tasks_output"],
    operations: &[Operation {
        name: "addOutput",
        methods: POST,
        title: "Adds to the output of a task that is under way.",
        about: "Bytes that are there already are passed over, so a piece may be sent again.",
        who: AGENT,
        parameters: &[
            ID,
            Parameter::query(
                "offset",
                Kind::Whole(0, NUMBER_MAX),
                "where the bytes begin; 0 without it",
            ),
            Parameter::query("claim", Kind::Id, "the claim that came with the task's lease"),
        ],
        body: Some(Payload {
            is_needed: true,
            content: Content::Bytes,
            about: "Bytes of the output.",
            example: "up 3 days\n",
        }),
        answers: &[Success::json(
            "They are kept.",
            &[
                Field::NO_ERROR,
                Field::new("next", Kind::Whole(0, NUMBER_MAX), "where the next bytes begin"),
                Field::maybe(
                    "capped",
                    Kind::Is(true),
                    "`[tasks] output_bytes_max` bytes are there: no more are kept",
                ),
            ],
            r#"{"error":false,"next":10}"#,
        )],
        refusals: &[
            TASK_ID,
            CLAIM,
            Refused::new(
                409,
                "The task is not under way here, or the claim is no longer held",
                "the task has ended, or is somebody else's",
            ),
            Refused::new(
                409,
                "There is a hole before offset",
                "bytes before `offset` are missing; `next` says where to go on",
            ),
        ],
        example: "/tasks_output?id=17&offset=0&claim=4",
    }],
};
