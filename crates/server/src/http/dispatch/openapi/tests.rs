//! The table against the endpoints and the errors of the code, and what is made from it against what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::{Endpoint, find, sutrc};
use super::{
    Content, Entry, Operation, TOPICS, agents, document, events, files, later, later_tasks,
    sending, server, sessions, shapes, taking, tasks, webhooks,
};
use crate::accounts::ChangeError;
use crate::files::FileError;

/// Every endpoint has an entry: without an arm here, nothing compiles.
fn entry(endpoint: Endpoint) -> &'static Entry {
    match endpoint {
        Endpoint::Login => &sessions::LOGIN,
        Endpoint::Logout => &sessions::LOGOUT,
        Endpoint::Agents => &agents::AGENTS,
        Endpoint::SelfRegistration => &agents::SELF_REGISTRATION,
        Endpoint::Events => &events::EVENTS,
        Endpoint::Stream => &events::STREAM,
        Endpoint::Tasks => &sending::TASKS,
        Endpoint::Result => &taking::RESULT,
        Endpoint::Lease => &taking::LEASE,
        Endpoint::Output => &taking::OUTPUT,
        Endpoint::History => &tasks::HISTORY,
        Endpoint::Task(_) => &tasks::TASK,
        Endpoint::TaskOutput(_) => &tasks::OUTPUT,
        Endpoint::EnrolTokens => &agents::ENROL_TOKENS,
        Endpoint::Enrol => &agents::ENROL,
        Endpoint::NewFile => &files::NEW_FILE,
        Endpoint::File(_) => &files::FILE,
        Endpoint::Webhooks => &webhooks::WEBHOOKS,
        Endpoint::Audit => &webhooks::AUDIT,
        Endpoint::Health => &server::HEALTH,
        Endpoint::Description => &server::DESCRIPTION,
        Endpoint::Sutrc(endpoint) => match endpoint {
            sutrc::Endpoint::Login => &later::LOGIN,
            sutrc::Endpoint::Logout => &later::LOGOUT,
            sutrc::Endpoint::Agents => &later::AGENTS,
            sutrc::Endpoint::SelfRegistration => &later::SELF_REGISTRATION,
            sutrc::Endpoint::Tasks => &later_tasks::TASKS,
            sutrc::Endpoint::Result => &later_tasks::RESULT,
            sutrc::Endpoint::NewFile => &later::NEW_FILE,
            sutrc::Endpoint::File(_) => &later::FILE,
        },
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    TOPICS.iter().flat_map(|topic| topic.entries.iter().copied())
}

fn operations() -> impl Iterator<Item = &'static Operation> {
    entries().flat_map(|entry| entry.operations)
}

#[test]
fn every_path_leads_to_the_endpoint_that_it_describes() {
    for entry_ in entries() {
        for path in entry_.paths {
            let path = path.replace("{id}", "17").replace("{name}", "x");
            let endpoint = find(&path).unwrap_or_else(|| panic!("nothing is at {path}"));
            assert!(std::ptr::eq(entry(endpoint), entry_), "{path} is {endpoint:?}");
        }
    }
}

#[test]
fn the_described_methods_are_those_that_are_answered() {
    for entry in entries() {
        let path = entry.paths[0].replace("{id}", "17").replace("{name}", "x");
        let allowed: BTreeSet<&str> =
            find(&path).unwrap().methods().iter().map(http::Method::as_str).collect();
        let described: Vec<&str> =
            entry.operations.iter().flat_map(|it| it.methods).copied().collect();
        assert_eq!(described.iter().copied().collect::<BTreeSet<_>>(), allowed, "{path}");
        assert_eq!(described.len(), allowed.len(), "each method of {path} is described once");
    }
}

#[test]
fn examples_are_requests_and_json() {
    let mut names = BTreeMap::new();
    for entry_ in entries() {
        for operation in entry_.operations {
            let name = operation.name;
            let path = operation.example.split('?').next().unwrap();
            assert!(find(path).is_some_and(|it| std::ptr::eq(entry(it), entry_)), "{name}");
            let is_json = |content, example: &str| {
                let is_json = matches!(content, Content::Json(_) | Content::JsonOrForm(_));
                !is_json || serde_json::from_str::<serde_json::Value>(example).is_ok()
            };
            let mut answers = operation.answers.iter();
            assert!(answers.all(|it| is_json(it.content, it.example)), "{name}");
            let body = operation.body.as_ref();
            assert!(body.is_none_or(|it| is_json(it.content, it.example)), "{name}");
            assert_eq!(names.insert(name, ()), None, "{name} is there twice");
        }
    }
}

#[test]
fn path_parameters_are_those_of_the_path() {
    for entry in entries() {
        for operation in entry.operations {
            let named = operation.parameters.iter().filter(|it| it.place == super::Place::Path);
            let named: Vec<String> = named.map(|it| format!("{{{}}}", it.name)).collect();
            for path in entry.paths {
                let parts: Vec<&str> = path.split('/').filter(|it| it.starts_with('{')).collect();
                assert_eq!(parts, named, "{path}");
            }
        }
    }
}

/// The texts of errors are written twice: where they happen, and in the table.
#[test]
fn what_is_refused_is_told_in_the_same_words() {
    let told: BTreeSet<(u16, &str)> =
        operations().flat_map(|it| it.refusals).map(|it| (it.status, it.message)).collect();
    let check = |refusal: super::super::Refusal| {
        let found = told.contains(&(refusal.status().as_u16(), refusal.message()));
        assert!(found, "{} {}", refusal.status(), refusal.message());
    };
    let name = |text: &str| crate::accounts::AccountName::parse(text).unwrap_err();
    let password =
        |text: &str| crate::accounts::passwords::check(&wire::Secret::new(text)).unwrap_err();
    check(ChangeError::Name(name("")).into());
    check(ChangeError::Name(name(":")).into());
    check(ChangeError::Name(name(&"a".repeat(256))).into());
    check(ChangeError::Password(password("")).into());
    check(ChangeError::Password(password(&"a".repeat(1025))).into());
    check(ChangeError::NameTaken.into());
    check(ChangeError::Disabled.into());
    check(ChangeError::Hardware.into());
    check(ChangeError::BadToken.into());
    check(ChangeError::TooMany.into());
    check(ChangeError::TooManyAttempts { retry_secs: 1 }.into());
    check(ChangeError::Busy.into());
    check(FileError::TooLong { limit_bytes: 32 << 20 }.into());
    check(FileError::NoSpace.into());
    check(::tasks::dispatcher::EnqueueError::QueueFull.into());
    check(::tasks::dispatcher::PollError::Gone.into());
    check(::tasks::dispatcher::CancelError::Ended.into());
    check(::tasks::dispatcher::CancelError::Unknown.into());
    check(super::super::Refusal::no_agent("web-9"));
    check(super::super::Refusal::no_file());
}

#[test]
fn a_field_is_described_once_in_its_object() {
    fn check(kind: shapes::Kind) {
        match kind {
            shapes::Kind::Object(fields) | shapes::Kind::Open(fields) => {
                let names: BTreeSet<&str> = fields.iter().map(|it| it.name).collect();
                assert_eq!(names.len(), fields.len(), "{names:?}");
                fields.iter().for_each(|it| check(it.kind));
            }
            shapes::Kind::List(kind) | shapes::Kind::Map(kind) => check(*kind),
            _ => {}
        }
    }
    for content in operations().flat_map(|it| it.answers).map(|it| it.content) {
        if let Content::Json(kind) = content {
            check(kind);
        }
    }
}

#[track_caller]
fn check_committed(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("GATEHOUSE_REWRITE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == expected,
        "{path} is out of date; rewrite it with \
         `GATEHOUSE_REWRITE=1 cargo test -p server the_committed_page`"
    );
}

#[test]
fn the_committed_page_of_the_protocol_is_the_one_the_table_gives() {
    check_committed("docs/dispatch-protocol.md", &super::page());
}

#[test]
fn the_committed_page_for_programs_is_the_one_the_table_gives() {
    let text = serde_json::to_string_pretty(&document::document()).unwrap() + "\n";
    check_committed("openapi/dispatch.json", &text);
}
