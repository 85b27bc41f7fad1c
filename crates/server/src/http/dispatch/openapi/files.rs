//! `/files`.

use super::shapes::{Field, Kind};
use super::{
    Content, DELETE, Entry, GET, NO_FILE, Operation, POST, Parameter, Payload, Refused, Success,
    Topic, Who,
};
use crate::accounts::Act;
use crate::http::dispatch::files::{TTL_SECS_MAX, USES_MAX};

pub(super) static TOPIC: Topic = Topic {
    title: "Files in transfer",
    about: "One leaves a file, others fetch it, until it has expired or is used up.",
    entries: &[&NEW_FILE, &FILE],
};

const NAME: Parameter = Parameter::path(
    "name",
    Kind::Short(255),
    "the file's name, without slashes and control characters",
);
pub(super) const PUT_PARAMETERS: &[Parameter] = &[
    NAME,
    Parameter::query(
        "ttl",
        Kind::Whole(1, TTL_SECS_MAX),
        "seconds until it is removed; without it `[tasks] file_secs` (3600)",
    ),
    Parameter::query(
        "uses",
        Kind::Whole(1, USES_MAX as u64),
        "how often it may be fetched; without it `[tasks] file_uses` (5)",
    ),
];
pub(super) const PUT_BODY: Payload = Payload {
    is_needed: true,
    content: Content::Bytes,
    about: "The file; at most `[tasks] file_bytes_max` (32 MiB).",
    example: "hello\n",
};
pub(super) const PUT_REFUSALS: &[Refused] = &[
    Refused::new(
        400,
        "A file's name has 1 to 255 bytes, and no slash or control character",
        "it has",
    ),
    Refused::new(413, "the file is longer than 33554432 bytes ([tasks] file_bytes_max)", "it is"),
    Refused::new(
        507,
        "there is no room for another file; wait until some have expired, or remove some",
        "all files together take 64 times the longest one",
    ),
];

pub(super) static NEW_FILE: Entry = Entry {
    paths: &["/files/{name}"],
    operations: &[Operation {
        name: "putFile",
        methods: POST,
        title: "Leaves a file for somebody else.",
        about: "",
        who: Who::May(Act::PutFile),
        parameters: PUT_PARAMETERS,
        body: Some(PUT_BODY),
        answers: &[Success::json(
            "The file is stored.",
            &[
                Field::NO_ERROR,
                Field::new("url", Kind::Text, "where it is, as a path on this server"),
                Field::new("id", Kind::Hex(32), "its id, which nobody can guess"),
                Field::new("bytes", Kind::AtLeast(0), "its length"),
                Field::new("sha256", Kind::Hex(64), "its checksum"),
                Field::new(
                    "expires_in",
                    Kind::Whole(1, TTL_SECS_MAX),
                    "seconds until it is removed",
                ),
                Field::new("uses", Kind::Whole(1, USES_MAX as u64), "how often it may be fetched"),
            ],
            r#"{"error":false,"url":"/files/00112233445566778899aabbccddeeff/hello.txt","id":"00112233445566778899aabbccddeeff","bytes":6,"sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03","expires_in":3600,"uses":5}"#,
        )],
        refusals: PUT_REFUSALS,
        example: "/files/hello.txt",
    }],
};

const RANGE: Parameter = Parameter {
    place: super::Place::Header,
    name: "Range",
    absent: super::Absent::Fine,
    kind: Kind::Text,
    about: "one part of it: `bytes=0-1023`",
};
const PATH_ID: Parameter = Parameter::path("id", Kind::Hex(32), "the file's id");
const HEADERS: &[Field] = &[
    Field::new("x-checksum-sha256", Kind::Hex(64), "checksum of the whole file"),
    Field::new("etag", Kind::Text, "the same in quotes"),
    Field::new("content-disposition", Kind::Text, "`attachment` and the name"),
];

pub(super) const FETCH: Operation = Operation {
    name: "getFile",
    methods: GET,
    title: "Fetches a file, or a part of it.",
    about: "Each answer with bytes of it is a use; HEAD is none. `If-Match`, `If-None-Match` and `If-Range` work with its `etag`.",
    who: Who::May(Act::GetFile),
    parameters: &[PATH_ID, NAME, RANGE],
    body: None,
    answers: &[
        Success {
            status: 200,
            when: "The file.",
            content: Content::Bytes,
            headers: HEADERS,
            example: "hello\n",
        },
        Success {
            status: 206,
            when: "The part that `Range` asks for.",
            content: Content::Bytes,
            headers: &[
                Field::new("content-range", Kind::Text, "which part, and the length of the whole"),
                Field::new("x-checksum-sha256", Kind::Hex(64), "checksum of the whole file"),
            ],
            example: "hel",
        },
        Success {
            status: 304,
            when: "`If-None-Match` names the file.",
            content: Content::Nothing,
            headers: &[Field::new("etag", Kind::Text, "as above")],
            example: "",
        },
    ],
    refusals: &[
        NO_FILE,
        Refused::new(412, "The file is another than If-Match says", "it is"),
        Refused::new(416, "The file has no such part", "`Range` begins behind its end"),
    ],
    example: "/files/00112233445566778899aabbccddeeff/hello.txt",
};

pub(super) static FILE: Entry = Entry {
    paths: &["/files/{id}/{name}"],
    operations: &[
        FETCH,
        Operation {
            name: "removeFile",
            methods: DELETE,
            title: "Removes a file.",
            about: "",
            who: Who::May(Act::Send),
            parameters: &[PATH_ID, NAME],
            body: None,
            answers: &[Success::ok("It is gone.")],
            refusals: &[NO_FILE],
            example: "/files/00112233445566778899aabbccddeeff/hello.txt",
        },
    ],
};
