//! `/events` and the live stream.

use super::shapes::{Field, Kind};
use super::taking::AGENT;
use super::{
    Absent, Content, Entry, GET, INVALID_JSON, Operation, POST, Parameter, Payload, Place, Refused,
    Success, Topic, Who,
};
use crate::accounts::Act;

pub(super) static TOPIC: Topic = Topic {
    title: "Events",
    about: "Of each agent the `[tasks] events_max` (512) newest events are kept, in the order in which they came.",
    entries: &[&EVENTS, &STREAM],
};

const NUMBER_MAX: u64 = i64::MAX as u64;
const LIST: Field = Field::new("events", Kind::List(&Kind::Any), "the events, oldest first");
const MAX_SIZE: Field = Field::new("max_size", Kind::AtLeast(1), "how many are kept of one agent");

pub(super) static EVENTS: Entry = Entry {
    paths: &["/events"],
    operations: &[
        Operation {
            name: "listEvents",
            methods: GET,
            title: "Gives events of an agent, oldest first.",
            about: "An agent that does not exist has none.",
            who: Who::May(Act::See),
            parameters: &[
                Parameter::needed("agent", Kind::Text, "the agent's name"),
                Parameter::query(
                    "after",
                    Kind::Whole(0, NUMBER_MAX),
                    "those with a greater id, the oldest first; without it the newest are meant",
                ),
                Parameter::query(
                    "limit",
                    Kind::AtLeast(1),
                    "at most so many, up to `[tasks] events_max`, as without it",
                ),
                Parameter::query("details", Kind::Switch, "tells id and time as well"),
            ],
            body: None,
            answers: &[
                Success::json(
                    "The events.",
                    &[Field::NO_ERROR, LIST, MAX_SIZE],
                    r#"{"error":false,"events":[{"disk":"full"}],"max_size":512}"#,
                ),
                Success::json(
                    "With `details=1`.",
                    &[
                        Field::NO_ERROR,
                        LIST,
                        MAX_SIZE,
                        Field::new(
                            "details",
                            Kind::List(&Kind::Object(&[
                                Field::new("id", Kind::Id, "its id; it grows"),
                                Field::new("at", Kind::Time, "when it came"),
                                Field::new("event", Kind::Any, "the event"),
                            ])),
                            "the same events",
                        ),
                    ],
                    r#"{"error":false,"events":[{"disk":"full"}],"max_size":512,"details":[{"id":"9","at":1763800000000,"event":{"disk":"full"}}]}"#,
                ),
            ],
            refusals: &[],
            example: "/events?agent=web-1",
        },
        Operation {
            name: "reportEvent",
            methods: POST,
            title: "Reports an event.",
            about: "",
            who: AGENT,
            parameters: &[],
            body: Some(Payload {
                is_needed: true,
                content: Content::Json(Kind::Any),
                about: "The event: any JSON value.",
                example: r#"{"disk":"full"}"#,
            }),
            answers: &[Success::json(
                "The event is stored.",
                &[Field::NO_ERROR, Field::new("msg", Kind::Text, "`Event logged`")],
                r#"{"error":false,"msg":"Event logged"}"#,
            )],
            refusals: &[INVALID_JSON],
            example: "/events",
        },
    ],
};

pub(super) static STREAM: Entry = Entry {
    paths: &["/events/stream"],
    operations: &[Operation {
        name: "followEvents",
        methods: GET,
        title: "Gives events as they come, as server-sent events.",
        about: "Messages called `event` carry `{\"agent\",\"at\",\"event\"}` and the event's id; one called `gap` carries \
                `{\"agent\",\"before\"}` and says that events of that agent before that id were dropped before they could be told. \
                A comment comes every 15 seconds. It begins with the events that follow, or after the id that is given.",
        who: Who::May(Act::See),
        parameters: &[
            Parameter::query(
                "agent",
                Kind::Text,
                "events of these alone: names with commas between them; `web*` is a beginning; at most 1000",
            ),
            Parameter::query("after", Kind::Whole(0, NUMBER_MAX), "goes on after this event"),
            Parameter {
                place: Place::Header,
                name: "Last-Event-ID",
                absent: Absent::Fine,
                kind: Kind::Id,
                about: "the same, and goes before `after`",
            },
        ],
        body: None,
        answers: &[Success {
            status: 200,
            when: "The stream, until either side ends it.",
            content: Content::Stream,
            headers: &[],
            example: "retry: 2000\nid: 8\n\nid: 9\nevent: event\ndata: {\"agent\":\"web-1\",\"at\":1763800000000,\"event\":{\"disk\":\"full\"}}\n\n",
        }],
        refusals: &[
            Refused::new(400, "Non-numeric Last-Event-ID", "it is no id"),
            Refused::new(400, "A name of an agent must not be empty", "`agent` has an empty name"),
            Refused::new(
                400,
                "A name of an agent has at most 255 bytes",
                "`agent` has a longer one",
            ),
            Refused::new(
                400,
                "At most 1000 agents can be named; a beginning with `*` stands for many",
                "`agent` has more",
            ),
            Refused::new(
                503,
                "Too many streams of events are open; try again later",
                "1000 are open",
            ),
        ],
        example: "/events/stream?agent=web*&after=8",
    }],
};
