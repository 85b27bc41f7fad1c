//! `/agents`, self-registration and enrolment.

use super::shapes::{Field, Kind};
use super::{
    Absent, CROWDED, Content, DELETE, Entry, GET, INVALID_JSON, NAME_EMPTY, NAME_FORBIDDEN,
    NAME_LONG, NAME_TAKEN, NO_AGENT, Operation, PATCH, POST, Parameter, Payload, Place, Refused,
    Success, Topic, Who,
};
use crate::accounts::enrolment::{TTL_MAX, USES_MAX};
use crate::accounts::{Act, passwords};

pub(super) static TOPIC: Topic = Topic {
    title: "Agents",
    about: "",
    entries: &[&AGENTS, &SELF_REGISTRATION, &ENROL_TOKENS, &ENROL],
};

const ADMIN: Who = Who::May(Act::Administer);

pub(super) const AGENT_LIST: &[Field] = &[
    Field::NO_ERROR,
    Field::new("agents", Kind::List(&Kind::Text), "the names of all agents"),
    Field::new(
        "online",
        Kind::Map(&Kind::Bool),
        "by name: whether it polls now, or has asked for something lately",
    ),
];
pub(super) const AGENT_LIST_EXAMPLE: &str =
    r#"{"error":false,"agents":["web-1","web-2"],"online":{"web-1":true,"web-2":false}}"#;

pub(super) const DISABLED: Refused = Refused::new(
    405,
    "Agents self-registration is disabled",
    "the switch is off; this 405 has no `Allow`",
);

pub(super) const AGENTS_FULL: Refused = Refused::new(
    429,
    "There are too many agents; self-registration adds no more",
    "there are `selfreg_agents_max` agents",
);

pub(super) const REMOVE: Operation = Operation {
    name: "removeAgent",
    methods: DELETE,
    title: "Removes an agent, its tasks and its events.",
    about: "Its parked poll ends with 403 `Agent deregistered`; whoever waits for its result is told.",
    who: ADMIN,
    parameters: &[Parameter::needed("id", Kind::Text, "name of the agent")],
    body: None,
    answers: &[Success::ok("It is gone.")],
    refusals: &[NO_AGENT],
    example: "/agents?id=web-1",
};

pub(super) const RENAME: Operation = Operation {
    name: "renameAgent",
    methods: PATCH,
    title: "Gives an agent another name; its tasks and events stay with it.",
    about: "",
    who: ADMIN,
    parameters: &[
        Parameter::needed("id", Kind::Text, "name of the agent"),
        Parameter::needed("newId", Kind::Short(255), "its new name"),
    ],
    body: None,
    answers: &[Success::ok("It has the new name.")],
    refusals: &[NO_AGENT, NAME_TAKEN, NAME_LONG, NAME_FORBIDDEN],
    example: "/agents?id=web-1&newId=web-01",
};

pub(super) static AGENTS: Entry = Entry {
    paths: &["/agents"],
    operations: &[
        Operation {
            name: "listAgents",
            methods: GET,
            title: "Lists agents in the order of their creation.",
            about: "",
            who: Who::May(Act::See),
            parameters: &[],
            body: None,
            answers: &[Success::json("The agents.", AGENT_LIST, AGENT_LIST_EXAMPLE)],
            refusals: &[],
            example: "/agents",
        },
        Operation {
            name: "registerAgent",
            methods: POST,
            title: "Makes an agent's account, while self-registration is on.",
            about: "",
            who: Who::Anyone,
            parameters: &[
                Parameter {
                    place: Place::Query,
                    name: "user",
                    absent: Absent::Refused,
                    kind: Kind::Short(255),
                    about: "its name, without `:` and control characters",
                },
                Parameter {
                    place: Place::Query,
                    name: "pass",
                    absent: Absent::Refused,
                    kind: Kind::Short(passwords::BYTES_MAX),
                    about: "its password",
                },
            ],
            body: None,
            answers: &[Success::empty("The account is there.")],
            refusals: &[
                Refused::new(
                    400,
                    "Pass 'user' and 'pass' in query string",
                    "one of them is not there",
                ),
                NAME_EMPTY,
                NAME_LONG,
                NAME_FORBIDDEN,
                Refused::new(400, "A password must not be empty", "the password is empty"),
                Refused::new(400, "A password has at most 1024 bytes", "the password is longer"),
                DISABLED,
                AGENTS_FULL,
                NAME_TAKEN,
                CROWDED,
            ],
            example: "/agents?user=web-3&pass=s3cret",
        },
        REMOVE,
        RENAME,
    ],
};

pub(super) const SWITCH: &[Operation] = &[
    Operation {
        name: "selfRegistration",
        methods: GET,
        title: "Tells whether agents may register themselves.",
        about: "",
        who: ADMIN,
        parameters: &[],
        body: None,
        answers: &[Success {
            status: 200,
            when: "The digit 1 for on, 0 for off.",
            content: Content::Text(Kind::OneOf(&["0", "1"])),
            headers: &[],
            example: "0",
        }],
        refusals: &[],
        example: "/agents_selfreg",
    },
    Operation {
        name: "setSelfRegistration",
        methods: POST,
        title: "Lets agents register themselves, or no longer.",
        about: "The switch is stored.",
        who: ADMIN,
        parameters: &[Parameter {
            place: Place::Query,
            name: "enabled",
            absent: Absent::Refused,
            kind: Kind::OneOf(&["0", "1"]),
            about: "`1` for on, `0` for off",
        }],
        body: None,
        answers: &[Success::empty("It is so.")],
        refusals: &[Refused::new(
            400,
            "Pass 'enabled=1' or 'enabled=0' in query string",
            "it is something else",
        )],
        example: "/agents_selfreg?enabled=1",
    },
];

pub(super) static SELF_REGISTRATION: Entry =
    Entry { paths: &["/agents_selfreg", "/agent_selfreg"], operations: SWITCH };

pub(super) static ENROL_TOKENS: Entry = Entry {
    paths: &["/enroll_tokens"],
    operations: &[Operation {
        name: "makeEnrolmentToken",
        methods: POST,
        title: "Makes a token by which machines become agents.",
        about: "It dies with the account that made it.",
        who: ADMIN,
        parameters: &[
            Parameter::query(
                "ttl",
                Kind::Whole(1, TTL_MAX.as_secs()),
                "seconds that it is good for; 3600 without it",
            ),
            Parameter::query(
                "uses",
                Kind::Whole(1, USES_MAX as u64),
                "machines that it is good for; 1 without it",
            ),
        ],
        body: None,
        answers: &[Success::json(
            "The token.",
            &[
                Field::NO_ERROR,
                Field::new("token", Kind::Hex(64), "it is told once"),
                Field::new(
                    "expires_in",
                    Kind::Whole(1, TTL_MAX.as_secs()),
                    "seconds until it is void",
                ),
                Field::new("uses", Kind::Whole(1, USES_MAX as u64), "machines that may use it"),
            ],
            r#"{"error":false,"token":"0b7d3c9e1f5a2468ace013579bdf02468ace13579bdf02468ace013579bdf024","expires_in":3600,"uses":1}"#,
        )],
        refusals: &[Refused::new(
            429,
            "There are too many already (at most 16 pass-codes and 10000 good tokens)",
            "10000 tokens are good at this time",
        )],
        example: "/enroll_tokens?ttl=3600&uses=1",
    }],
};

pub(super) static ENROL: Entry = Entry {
    paths: &["/enroll"],
    operations: &[Operation {
        name: "enrol",
        methods: POST,
        title: "Makes whoever shows a token an agent.",
        about: "From then on the agent authorizes with `NAME:SECRET`.",
        who: Who::Anyone,
        parameters: &[],
        body: Some(Payload {
            is_needed: true,
            content: Content::Json(Kind::Open(&[
                Field::new("token", Kind::Text, "a token of `POST /enroll_tokens`"),
                Field::new("name", Kind::Short(255), "the name that the agent is to have"),
            ])),
            about: "Token and name.",
            example: r#"{"token":"0b7d3c9e1f5a2468ace013579bdf02468ace13579bdf02468ace013579bdf024","name":"web-1"}"#,
        }),
        answers: &[Success::json(
            "The account is there.",
            &[
                Field::NO_ERROR,
                Field::new("name", Kind::Text, "the agent's name"),
                Field::new("secret", Kind::Hex(64), "its password; it is told once"),
            ],
            r#"{"error":false,"name":"web-1","secret":"9c1185a5c5e9fc54612808977ee8f548b2258d31ddadef707ba62c166051b9e3"}"#,
        )],
        refusals: &[
            INVALID_JSON,
            Refused::new(
                400,
                "Pass 'token' and 'name' in a JSON object",
                "one of them is not there, or no text",
            ),
            NAME_EMPTY,
            NAME_LONG,
            NAME_FORBIDDEN,
            Refused::new(403, "The token is wrong, used up or expired", "it is no good"),
            NAME_TAKEN,
            Refused::new(
                429,
                "Too many attempts; wait before the next",
                "too many wrong tokens from the address; `Retry-After` says when to try again",
            ),
        ],
        example: "/enroll",
    }],
};
