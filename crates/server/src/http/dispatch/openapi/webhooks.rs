//! `/webhooks` and `/audit`.

use super::shapes::{Field, Kind};
use super::{
    Content, DELETE, Entry, GET, Operation, POST, Parameter, Payload, Refused, Success, Topic, Who,
};
use crate::accounts::Act;
use crate::accounts::audit::PAGE_MAX;
use crate::http::dispatch::webhooks::SECRET_BYTES_MAX;

pub(super) static TOPIC: Topic = Topic {
    title: "Webhooks and the audit log",
    about: "How deliveries look and how they are signed is told in [dispatch.md](dispatch.md#events).",
    entries: &[&WEBHOOKS, &AUDIT],
};

const ADMIN: Who = Who::May(Act::Administer);

const SHOWN: Kind = Kind::Object(&[
    Field::new("id", Kind::Id, "its id"),
    Field::new("url", Kind::Text, "where events are sent"),
    Field::new("agents", Kind::List(&Kind::Text), "whose events; everybody's when there are none"),
    Field::new("created_at", Kind::Time, "when it was added"),
    Field::new("delivered_to", Kind::Id, "the newest event that was taken there"),
    Field::new("last_error", Kind::Nullable(&Kind::Text), "why the last attempt failed"),
    Field::new("failing_since", Kind::Nullable(&Kind::Time), "since when attempts fail"),
]);

pub(super) static WEBHOOKS: Entry = Entry {
    paths: &["/webhooks"],
    operations: &[
        Operation {
            name: "listWebhooks",
            methods: GET,
            title: "Lists webhooks, without their secrets.",
            about: "",
            who: ADMIN,
            parameters: &[],
            body: None,
            answers: &[Success::json(
                "All of them.",
                &[Field::NO_ERROR, Field::new("webhooks", Kind::List(&SHOWN), "all of them")],
                r#"{"error":false,"webhooks":[{"id":"1","url":"https://example.com/hook","agents":["web*"],"created_at":1763800000000,"delivered_to":"9","last_error":null,"failing_since":null}]}"#,
            )],
            refusals: &[],
            example: "/webhooks",
        },
        Operation {
            name: "addWebhook",
            methods: POST,
            title: "Adds a webhook: it is sent the events that follow.",
            about: "",
            who: ADMIN,
            parameters: &[],
            body: Some(Payload {
                is_needed: true,
                content: Content::Json(Kind::Object(&[
                    Field::new(
                        "url",
                        Kind::Short(2048),
                        "an address that begins with `http://` or `https://`, without name and password",
                    ),
                    Field::maybe(
                        "secret",
                        Kind::Short(SECRET_BYTES_MAX),
                        "signs deliveries; the server makes one when there is none",
                    ),
                    Field::maybe(
                        "agents",
                        Kind::List(&Kind::Text),
                        "whose events: at most 1000 names, or beginnings that end in `*`; everybody's without it",
                    ),
                ])),
                about: "The webhook; other fields are refused.",
                example: r#"{"url":"https://example.com/hook","agents":["web*"]}"#,
            }),
            answers: &[Success::json(
                "It is there.",
                &[
                    Field::NO_ERROR,
                    Field::new("id", Kind::Id, "its id"),
                    Field::new("secret", Kind::Text, "what signs deliveries; it is told once"),
                ],
                r#"{"error":false,"id":"1","secret":"5f2b8c0d1e3a49786b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a"}"#,
            )],
            refusals: &[
                Refused::new(
                    400,
                    "Not a webhook in JSON: missing field `url` at line 1 column 2",
                    "the body is something else",
                ),
                Refused::new(400, "'secret' must have 1 to 1024 bytes", "it has not"),
                Refused::new(400, "'url' must begin with http:// or https://", "it does not"),
                Refused::new(400, "'url' has at most 2048 bytes", "it is longer"),
                Refused::new(
                    400,
                    "'url' must not hold a name or password; check the signature instead",
                    "it holds one",
                ),
                Refused::new(
                    400,
                    "A name of an agent must not be empty",
                    "`agents` has an empty name",
                ),
                Refused::new(409, "There are 64 webhooks already; remove one first", "there are"),
            ],
            example: "/webhooks",
        },
        Operation {
            name: "removeWebhook",
            methods: DELETE,
            title: "Removes a webhook.",
            about: "",
            who: ADMIN,
            parameters: &[Parameter::needed("id", Kind::Id, "its id")],
            body: None,
            answers: &[Success::ok("It is gone.")],
            refusals: &[
                Refused::new(400, "Non-numeric webhook id", "`id` is no number"),
                Refused::new(404, "Webhook doesn't exist", "there is none with the id"),
            ],
            example: "/webhooks?id=1",
        },
    ],
};

pub(super) static AUDIT: Entry = Entry {
    paths: &["/audit"],
    operations: &[Operation {
        name: "readAudit",
        methods: GET,
        title: "Gives a page of the audit log, the newest first.",
        about: "",
        who: ADMIN,
        parameters: &[
            Parameter::query(
                "before",
                Kind::Whole(0, i64::MAX as u64),
                "entries with a smaller id: `next` of the page before",
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
                Field::new(
                    "entries",
                    Kind::List(&Kind::Object(&[
                        Field::new("id", Kind::Id, "its id"),
                        Field::new("at", Kind::Time, "when"),
                        Field::new("who", Kind::Text, "whose account"),
                        Field::new("from", Kind::Text, "from which address"),
                        Field::new("act", Kind::Text, "what was done"),
                        Field::new("what", Kind::Text, "to what"),
                        Field::new("outcome", Kind::Text, "`ok` or `refused`"),
                    ])),
                    "the entries",
                ),
                Field::new(
                    "next",
                    Kind::Nullable(&Kind::Id),
                    "what the next page has as `before`; `null` when there is none",
                ),
            ],
            r#"{"error":false,"entries":[{"id":"3","at":1763800000000,"who":"alice","from":"10.0.0.7","act":"cancel task","what":"17","outcome":"ok"}],"next":"3"}"#,
        )],
        refusals: &[],
        example: "/audit?limit=1",
    }],
};
