//! The table as a page for people.
//!
//! Invariant: what is the same everywhere is said in the introduction, and only there.

use std::fmt::Write as _;

use super::shapes::{Field, Kind};
use super::{Content, Entry, Operation, Payload, Place, Refused, Success, TOPICS, Who, schema};
use crate::accounts::Role;

const INTRODUCTION: &str = include_str!("page/introduction.md");

/// The whole page.
pub(super) fn text() -> String {
    let mut page = INTRODUCTION.to_owned();
    for topic in TOPICS {
        let _ = write!(page, "\n## {}\n", topic.title);
        paragraph(&mut page, topic.about);
        for entry in topic.entries {
            for operation in entry.operations {
                put(&mut page, entry, operation);
            }
        }
    }
    page
}

fn paragraph(page: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(page, "\n{text}\n");
    }
}

fn put(page: &mut String, entry: &Entry, operation: &Operation) {
    let preferred = entry.paths.first().copied().unwrap_or_default();
    // HEAD goes with GET, which the introduction says.
    let methods: Vec<&str> = operation
        .methods
        .iter()
        .copied()
        .filter(|it| *it != "HEAD" || operation.methods.len() > 2)
        .collect();
    let _ = write!(page, "\n### `{} {preferred}`\n", methods.join(", "));
    let mut about = operation.title.to_owned();
    if !operation.about.is_empty() {
        about = format!("{about} {}", operation.about);
    }
    paragraph(page, &about);
    let others: Vec<String> = entry.paths.iter().skip(1).map(|it| format!("`{it}`")).collect();
    let also = match others.is_empty() {
        true => String::new(),
        false => format!(" Also spelled {}.", others.join(", ")),
    };
    paragraph(page, &format!("**Who:** {}.{also}", who(operation.who)));
    parameters(page, operation);
    request(page, operation);
    for success in operation.answers {
        answer(page, success);
    }
    refusals(page, operation.refusals);
}

fn who(who: Who) -> String {
    match who {
        Who::Anyone => "anyone".to_owned(),
        Who::Shown => "whoever has the header `Authorization`".to_owned(),
        Who::May(act) => {
            let roles = Role::ALL.into_iter().filter(|role| role.may(act)).map(Role::name);
            roles.collect::<Vec<_>>().join(", ")
        }
    }
}

fn parameters(page: &mut String, operation: &Operation) {
    if operation.parameters.is_empty() {
        return;
    }
    page.push_str("\n| parameter | value | what it is |\n|---|---|---|\n");
    for it in operation.parameters {
        let place = match it.place {
            Place::Path => " (path)",
            Place::Query if it.is_needed() => " (needed)",
            Place::Query => "",
            Place::Header => " (header)",
        };
        row(page, &[&format!("`{}`{place}", it.name), &schema::name(it.kind), it.about]);
    }
}

fn request(page: &mut String, operation: &Operation) {
    let method = operation.methods.first().copied().unwrap_or_default();
    let _ = write!(page, "\n```http\n{method} {}\n", operation.example);
    if !matches!(operation.who, Who::Anyone) {
        let is_agent = matches!(operation.who, Who::May(act) if !Role::Admin.may(act));
        page.push_str(if is_agent {
            "Authorization: web-1:PASSWORD\n"
        } else {
            "Authorization: TOKEN\n"
        });
    }
    if let Some(body) = &operation.body {
        let _ = write!(page, "\n{}\n", body.example.trim_end());
    }
    page.push_str("```\n");
    if let Some(body) = &operation.body {
        payload(page, body);
    }
}

fn payload(page: &mut String, body: &Payload) {
    paragraph(page, body.about);
    if let Content::Json(Kind::Object(fields) | Kind::Open(fields))
    | Content::JsonOrForm(Kind::Object(fields) | Kind::Open(fields)) = body.content
    {
        table(page, fields);
    }
}

fn answer(page: &mut String, success: &Success) {
    let nothing =
        if matches!(success.content, Content::Nothing) { " The body is empty." } else { "" };
    paragraph(page, &format!("**{}** {}{nothing}", success.status, success.when));
    let language = match success.content {
        Content::Nothing => None,
        Content::Json(_) | Content::JsonOrForm(_) => Some("json"),
        Content::Text(_) | Content::Bytes | Content::Stream => Some("text"),
    };
    if let Some(language) = language {
        let _ = write!(page, "\n```{language}\n{}\n```\n", success.example.trim_end());
    }
    if let Content::Json(Kind::Object(fields) | Kind::Open(fields)) = success.content {
        table(page, fields);
    }
    if !success.headers.is_empty() {
        page.push_str("\n| header | value | what it is |\n|---|---|---|\n");
        success.headers.iter().for_each(|it| field(page, "", it));
    }
}

/// The fields of an object, and of objects in it; `error` needs no words.
fn table(page: &mut String, fields: &[Field]) {
    if fields.iter().all(|it| it.about.is_empty()) {
        return;
    }
    page.push_str("\n| field | value | what it is |\n|---|---|---|\n");
    rows(page, "", fields);
}

fn rows(page: &mut String, prefix: &str, fields: &[Field]) {
    for it in fields.iter().filter(|it| !it.about.is_empty()) {
        field(page, prefix, it);
        match it.kind {
            Kind::Object(inner) | Kind::Open(inner) => {
                rows(page, &format!("{prefix}{}.", it.name), inner);
            }
            Kind::List(Kind::Object(inner) | Kind::Open(inner)) => {
                rows(page, &format!("{prefix}{}[].", it.name), inner);
            }
            _ => {}
        }
    }
}

fn field(page: &mut String, prefix: &str, field: &Field) {
    let maybe = if field.is_always { "" } else { " (may be missing)" };
    let name = format!("`{prefix}{}`{maybe}", field.name);
    row(page, &[&name, &schema::name(field.kind), field.about]);
}

fn refusals(page: &mut String, refusals: &[Refused]) {
    if refusals.is_empty() {
        return;
    }
    page.push_str("\n| refused with | `msg` | when |\n|---|---|---|\n");
    let mut refusals = refusals.to_vec();
    refusals.sort_by_key(|it| it.status);
    for it in refusals {
        row(page, &[&it.status.to_string(), it.message, it.when]);
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
