//! What the server says of itself.

use super::shapes::{Field, Kind};
use super::{Entry, GET, Operation, Success, Topic, Who};

pub(super) static TOPIC: Topic =
    Topic { title: "The server itself", about: "", entries: &[&HEALTH, &DESCRIPTION] };

pub(super) static HEALTH: Entry = Entry {
    paths: &["/healthz"],
    operations: &[Operation {
        name: "health",
        methods: GET,
        title: "Answers as long as the server does.",
        about: "",
        who: Who::Anyone,
        parameters: &[],
        body: None,
        answers: &[Success::ok("It does.")],
        refusals: &[],
        example: "/healthz",
    }],
};

pub(super) static DESCRIPTION: Entry = Entry {
    paths: &["/openapi.json"],
    operations: &[Operation {
        name: "description",
        methods: GET,
        title: "Gives this description as OpenAPI 3.1.",
        about: "",
        who: Who::Anyone,
        parameters: &[],
        body: None,
        answers: &[Success::json(
            "The description.",
            &[
                Field::new("openapi", Kind::Text, "`3.1.0`"),
                Field::new("info", Kind::Any, "title and version"),
                Field::new("servers", Kind::Any, "this one"),
                Field::new("tags", Kind::Any, "topics"),
                Field::new("paths", Kind::Map(&Kind::Any), "everything that answers"),
                Field::new("components", Kind::Any, "what is used more than once"),
            ],
            r#"{"openapi":"3.1.0","info":{"title":"Gatehouse dispatch","version":"1"},"servers":[{"url":"/"}],"tags":[],"paths":{},"components":{}}"#,
        )],
        refusals: &[],
        example: "/openapi.json",
    }],
};
