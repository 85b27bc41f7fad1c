//! `/login` and `/logout`.

use super::shapes::{Field, Kind};
use super::{
    CROWDED, Content, Entry, Operation, POST, Parameter, Payload, Refused, Success, Topic, Who,
};

pub(super) static TOPIC: Topic = Topic {
    title: "Sessions",
    about: "Admins, operators and viewers log in; agents show their name and password with each request.",
    entries: &[&LOGIN, &LOGOUT],
};

pub(super) const ROLES: Kind = Kind::OneOf(&["admin", "operator", "viewer"]);

pub(super) const SESSION: &[Field] = &[
    Field::NO_ERROR,
    Field::new("msg", Kind::Text, "`Logged in`"),
    Field::new("token", Kind::Hex(64), "authorizes from now on; it is told once"),
    Field::new("role", ROLES, "what the account is for"),
    Field::new(
        "expires_in",
        Kind::AtLeast(1),
        "seconds after which the session ends when it is not used",
    ),
];

pub(super) const SESSION_EXAMPLE: &str = r#"{"error":false,"msg":"Logged in","token":"6f1c0a2b9d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8","role":"admin","expires_in":2592000}"#;

pub(super) const REFUSED: Refused = Refused::new(
    403,
    "Invalid credentials",
    "name or password is wrong or missing, or the account is an agent's",
);
pub(super) const TOO_MANY: Refused = Refused::new(
    429,
    "Too many attempts; wait before the next",
    "too many failed from the address or for the account; `Retry-After` says when to try again",
);

pub(super) static LOGIN: Entry = Entry {
    paths: &["/login"],
    operations: &[Operation {
        name: "login",
        methods: POST,
        title: "Begins a session.",
        about: "Name and password stand in the query, or better in the body, as JSON or as a form.",
        who: Who::Anyone,
        parameters: &[
            Parameter::query(
                "user",
                Kind::Text,
                "name of the account, where the body does not say it",
            ),
            Parameter::query("pass", Kind::Text, "its password"),
        ],
        body: Some(Payload {
            is_needed: false,
            content: Content::JsonOrForm(Kind::Open(&[
                Field::new("user", Kind::Text, "name of the account"),
                Field::new("pass", Kind::Text, "its password"),
            ])),
            about: "Name and password, unless they stand in the query.",
            example: r#"{"user":"alice","pass":"correct horse"}"#,
        }),
        answers: &[Success::json("The session has begun.", SESSION, SESSION_EXAMPLE)],
        refusals: &[REFUSED, TOO_MANY, CROWDED],
        example: "/login",
    }],
};

pub(super) const LOGGED_OUT: Success = Success::json(
    "The session has ended; one that did not exist has as well.",
    &[Field::NO_ERROR, Field::new("msg", Kind::Text, "`Logged out`")],
    r#"{"error":false,"msg":"Logged out"}"#,
);
pub(super) const NO_HEADER: Refused =
    Refused::new(400, "Missing Authorization header", "it is not there");

pub(super) static LOGOUT: Entry = Entry {
    paths: &["/logout"],
    operations: &[Operation {
        name: "logout",
        methods: POST,
        title: "Ends the session whose token is in `Authorization`.",
        about: "",
        who: Who::Shown,
        parameters: &[],
        body: None,
        answers: &[LOGGED_OUT],
        refusals: &[NO_HEADER],
        example: "/logout",
    }],
};
