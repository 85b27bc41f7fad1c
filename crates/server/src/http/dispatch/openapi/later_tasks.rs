//! `/sutrc/api/tasks`: the later protocol's tasks and results, which are objects.

use super::shapes::{Field, Kind};
use super::taking::{AGENT, GONE, NO_JSON_RESULT};
use super::{
    Content, Entry, INVALID_JSON, Operation, POST, Parameter, Payload, Refused, Success, TASK_ID,
    Topic, Who,
};
use crate::accounts::Act;
use crate::http::dispatch::tasks::WAIT_SECS_MAX;

pub(super) static TOPIC: Topic =
    Topic { title: "The later protocol: tasks", about: "", entries: &[&TASKS, &RESULT] };

const RESULT_OF_ONE: Kind = Kind::Open(&[
    Field::new("target", Kind::Text, "the agent's name"),
    Field::new(
        "error",
        Kind::Any,
        "as the agent has said it, or `false`; `true` when there is no result",
    ),
    Field::maybe("msg", Kind::Any, "why there is none"),
]);

pub(super) static TASKS: Entry = Entry {
    paths: &["/sutrc/api/tasks"],
    operations: &[
        Operation {
            name: "laterTakeTask",
            methods: &["GET"],
            title: "Gives an agent its next task, as soon as there is one.",
            about: "It waits for `[tasks] wait_secs` (26) seconds. A task that was sent by the other protocol and is no object stands \
                    in `task`.",
            who: AGENT,
            parameters: &[],
            body: None,
            answers: &[
                Success {
                    status: 200,
                    when: "The task, with its number in it.",
                    content: Content::Json(Kind::Open(&[Field::new(
                        "id",
                        Kind::AtLeast(1),
                        "the task's id, as a number",
                    )])),
                    headers: &[],
                    example: r#"{"id":17,"type":"proclist"}"#,
                },
                Success::json("There was none in time.", &[], "{}"),
            ],
            refusals: &[GONE],
            example: "/sutrc/api/tasks",
        },
        Operation {
            name: "laterSendTask",
            methods: POST,
            title: "Sends a task to one agent or several and waits for all of them.",
            about: "A task that was not taken when the time is over is cancelled. What fails, fails for its target alone: `Agent doesn't \
                    exists`, `Queue is overflowed. Check agent.`, `Time out while waiting for task result`, `Agent deregistered`.",
            who: Who::May(Act::Send),
            parameters: &[
                Parameter::needed(
                    "target",
                    Kind::Text,
                    "names of agents, with commas between them; at most 20000",
                ),
                Parameter::query(
                    "timeout",
                    Kind::Whole(0, WAIT_SECS_MAX),
                    "seconds to wait for results; without it `[tasks] wait_secs` (26)",
                ),
            ],
            body: Some(Payload {
                is_needed: true,
                content: Content::Json(Kind::Open(&[Field::new(
                    "type",
                    Kind::Text,
                    "what is to be done",
                )])),
                about: "The task: an object with a type.",
                example: r#"{"type":"proclist"}"#,
            }),
            answers: &[Success::json(
                "Results in the order of the targets.",
                &[
                    Field::NO_ERROR,
                    Field::new(
                        "results",
                        Kind::List(&RESULT_OF_ONE),
                        "fields of each result, and its target",
                    ),
                ],
                r#"{"error":false,"results":[{"target":"web-1","error":false,"procs":[]},{"target":"web-9","error":true,"msg":"Agent doesn't exists"}]}"#,
            )],
            refusals: &[
                INVALID_JSON,
                Refused::new(
                    400,
                    "Task type missing: a task is an object with a text as 'type'",
                    "it is none",
                ),
                Refused::new(400, "More than 20000 targets", "there are"),
            ],
            example: "/sutrc/api/tasks?target=web-1,web-9",
        },
    ],
};

pub(super) static RESULT: Entry = Entry {
    paths: &["/sutrc/api/task_result", "/sutrc/api/tasks_result"],
    operations: &[Operation {
        name: "laterReportResult",
        methods: POST,
        title: "Reports the result of a task.",
        about: "One without `error` is given `\"error\": false`. The first result counts; all others are answered 200 as well.",
        who: AGENT,
        parameters: &[Parameter::needed("id", Kind::Id, "the task's id")],
        body: Some(Payload {
            is_needed: true,
            content: Content::Json(Kind::Open(&[])),
            about: "The result: an object.",
            example: r#"{"procs":[{"id":7,"name":"sshd"}]}"#,
        }),
        answers: &[Success::empty("The result is stored, or was not needed.")],
        refusals: &[
            TASK_ID,
            NO_JSON_RESULT,
            Refused::new(400, "A result must be a JSON object", "it is none"),
        ],
        example: "/sutrc/api/task_result?id=17",
    }],
};
