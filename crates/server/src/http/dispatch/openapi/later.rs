//! `/sutrc`: the later protocol of the same authors; sessions, agents and files.

use super::agents::{AGENT_LIST, AGENTS_FULL, DISABLED, REMOVE, RENAME, SWITCH};
use super::files::{FETCH, PUT_BODY, PUT_PARAMETERS, PUT_REFUSALS};
use super::sessions::{LOGGED_OUT, NO_HEADER, SESSION, SESSION_EXAMPLE, TOO_MANY};
use super::shapes::Kind;
use super::{
    Absent, CROWDED, Content, Entry, GET, NAME_EMPTY, NAME_FORBIDDEN, NAME_LONG, NAME_TAKEN,
    Operation, POST, Parameter, Place, Refused, Success, Topic, Who,
};
use crate::accounts::{Act, passwords};

pub(super) static TOPIC: Topic = Topic {
    title: "The later protocol: sessions, agents, files",
    about: "What sutrc speaks, on the same accounts, tasks and files. An agent of it shows its hardware id alone in `Authorization`.",
    entries: &[&LOGIN, &LOGOUT, &AGENTS, &SELF_REGISTRATION, &NEW_FILE, &FILE],
};

const ALL: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

pub(super) static LOGIN: Entry = Entry {
    paths: &["/sutrc/api/login"],
    operations: &[Operation {
        name: "laterLogin",
        methods: ALL,
        title: "Begins a session for whoever has a pass-code.",
        about: "",
        who: Who::Anyone,
        parameters: &[Parameter {
            place: Place::Query,
            name: "token",
            absent: Absent::Refused,
            kind: Kind::Short(passwords::BYTES_MAX),
            about: "the pass-code",
        }],
        body: None,
        answers: &[Success::json("The session has begun.", SESSION, SESSION_EXAMPLE)],
        refusals: &[
            Refused::new(403, "Invalid credentials", "the pass-code is wrong or missing"),
            TOO_MANY,
            CROWDED,
        ],
        example: "/sutrc/api/login?token=correct-horse",
    }],
};

pub(super) static LOGOUT: Entry = Entry {
    paths: &["/sutrc/api/logout"],
    operations: &[Operation {
        name: "laterLogout",
        methods: ALL,
        title: "Ends the session whose token is in `Authorization`.",
        about: "",
        who: Who::Shown,
        parameters: &[],
        body: None,
        answers: &[LOGGED_OUT],
        refusals: &[NO_HEADER],
        example: "/sutrc/api/logout",
    }],
};

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { place: Place::Query, name, absent: Absent::Refused, kind, about }
}

pub(super) static AGENTS: Entry = Entry {
    paths: &["/sutrc/api/agents"],
    operations: &[
        Operation {
            name: "laterListAgents",
            methods: GET,
            title: "Lists agents, short names first.",
            about: "",
            who: Who::May(Act::See),
            parameters: &[],
            body: None,
            answers: &[Success::json("The agents.", AGENT_LIST, super::agents::AGENT_LIST_EXAMPLE)],
            refusals: &[],
            example: "/sutrc/api/agents",
        },
        Operation {
            name: "laterRegisterAgent",
            methods: POST,
            title: "Makes an agent's account by its hardware id, or makes sure that there is one.",
            about: "A hardware id that is known is answered 200 also while self-registration is off; its name stays as it was.",
            who: Who::Anyone,
            parameters: &[
                needed("name", Kind::Short(255), "its name, without `:` and control characters"),
                needed("hwid", Kind::Short(passwords::BYTES_MAX), "its hardware id"),
            ],
            body: None,
            answers: &[Success::empty("The account is there.")],
            refusals: &[
                Refused::new(
                    400,
                    "Pass 'name' and 'hwid' in query string",
                    "one of them is not there",
                ),
                Refused::new(400, "A hardware id has 1 to 1024 bytes", "it has more, or none"),
                NAME_EMPTY,
                NAME_LONG,
                NAME_FORBIDDEN,
                DISABLED,
                AGENTS_FULL,
                NAME_TAKEN,
                Refused::new(
                    429,
                    "Too many attempts; wait before the next",
                    "too many unknown hardware ids from the address; `Retry-After` says when to try again",
                ),
            ],
            example: "/sutrc/api/agents?name=web-3&hwid=4c4c4544",
        },
        Operation { name: "laterRemoveAgent", example: "/sutrc/api/agents?id=web-1", ..REMOVE },
        Operation {
            name: "laterRenameAgent",
            example: "/sutrc/api/agents?id=web-1&newId=web-01",
            ..RENAME
        },
    ],
};

pub(super) static SELF_REGISTRATION: Entry = Entry {
    paths: &["/sutrc/api/agents_selfreg", "/sutrc/api/agent_selfreg"],
    operations: &[
        Operation {
            name: "laterSelfRegistration",
            example: "/sutrc/api/agents_selfreg",
            ..SWITCH[0]
        },
        Operation {
            name: "laterSetSelfRegistration",
            example: "/sutrc/api/agents_selfreg?enabled=1",
            ..SWITCH[1]
        },
    ],
};

pub(super) static NEW_FILE: Entry = Entry {
    paths: &["/sutrc/api/filedrop/{name}", "/sutrc/filedrop/{name}"],
    operations: &[Operation {
        name: "laterPutFile",
        methods: POST,
        title: "Leaves a file for somebody else.",
        about: "",
        who: Who::May(Act::PutFile),
        parameters: PUT_PARAMETERS,
        body: Some(PUT_BODY),
        answers: &[Success {
            status: 200,
            when: "The file's address.",
            content: Content::Text(Kind::Text),
            headers: &[],
            example: "http://127.0.0.1:8000/sutrc/api/filedrop/00112233445566778899aabbccddeeff/hello.txt",
        }],
        refusals: PUT_REFUSALS,
        example: "/sutrc/api/filedrop/hello.txt",
    }],
};

pub(super) static FILE: Entry = Entry {
    paths: &["/sutrc/api/filedrop/{id}/{name}", "/sutrc/filedrop/{id}/{name}"],
    operations: &[Operation {
        name: "laterGetFile",
        example: "/sutrc/api/filedrop/00112233445566778899aabbccddeeff/hello.txt",
        ..FETCH
    }],
};
