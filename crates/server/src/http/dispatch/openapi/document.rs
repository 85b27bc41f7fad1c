//! The table as OpenAPI 3.1.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::shapes::{Field, Kind};
use super::{
    Content, Entry, LONG_BODY, Operation, Parameter, Payload, Place, Refused, SLOW_BODY, STORE,
    Success, TOO_MANY, TOPICS, Topic, UNAUTHORIZED, Who, schema,
};
use crate::accounts::Role;

const ABOUT: &str = "Tasks for agents, events from them. Every refusal is `{\"error\": true, \"msg\": …}`; a method that a path does \
not have is 405 with `Allow`. A parameter that is there twice is refused. Answers may gain fields.";

/// Refusals of many operations.
const SHARED: &[(&str, Refused)] = &[
    ("Unauthorized", UNAUTHORIZED),
    ("TooManyAttempts", TOO_MANY),
    ("SlowBody", SLOW_BODY),
    ("LongBody", LONG_BODY),
    ("Unavailable", STORE),
];

/// The description.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for topic in TOPICS {
        for entry in topic.entries {
            for at in 0..entry.paths.len() {
                paths.insert(entry.paths[at].to_owned(), path(topic, entry, at));
            }
        }
    }
    let tags: Vec<Value> = TOPICS.iter().map(|it| tag(it)).collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Gatehouse dispatch", "version": "1", "description": ABOUT },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": { "Refusal": refusal() },
            "responses": shared(),
            "securitySchemes": security_schemes(),
        },
    })
}

fn tag(topic: &Topic) -> Value {
    if topic.about.is_empty() {
        return json!({ "name": topic.title });
    }
    json!({ "name": topic.title, "description": topic.about })
}

fn refusal() -> Value {
    const FIELDS: &[Field] = &[
        Field::new("error", Kind::Is(true), ""),
        Field::new("msg", Kind::Text, "what is wrong, for people"),
        Field::maybe("id", Kind::Id, "the task that it is about"),
        Field::maybe("next", Kind::AtLeast(0), "where output goes on"),
    ];
    schema::of(Kind::Object(FIELDS))
}

fn shared() -> Value {
    let answers = SHARED.iter().map(|(name, it)| {
        let told = vec![(it.message.to_owned(), it.when.to_owned())];
        ((*name).to_owned(), refused(it.status, told, false))
    });
    answers.collect::<Map<String, Value>>().into()
}

fn security_schemes() -> Value {
    json!({
        "authorization": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "A session's token, or an agent's `NAME:PASSWORD`, or the hardware id of one.",
        },
        "bearer": { "type": "http", "scheme": "bearer", "description": "The same after `Bearer`." },
        "basic": { "type": "http", "scheme": "basic", "description": "The same in base64 after `Basic`." },
    })
}

fn path(topic: &Topic, entry: &Entry, at: usize) -> Value {
    let mut methods = Map::new();
    for operation in entry.operations {
        for (number, method) in operation.methods.iter().enumerate() {
            let mut name = operation.name.to_owned();
            if number > 0 {
                name += &title_case(method);
            }
            if at > 0 {
                name += "OtherSpelling";
            }
            let described = described(topic, operation, name, *method == "HEAD");
            methods.insert(method.to_lowercase(), described);
        }
    }
    methods.into()
}

fn title_case(word: &str) -> String {
    word[..1].to_owned() + &word[1..].to_lowercase()
}

fn described(topic: &Topic, operation: &Operation, name: String, is_head: bool) -> Value {
    let mut value = json!({
        "operationId": name,
        "tags": [topic.title],
        "summary": operation.title,
        "responses": responses(operation, is_head),
    });
    if !operation.about.is_empty() {
        value["description"] = operation.about.into();
    }
    let parameters: Vec<Value> = operation.parameters.iter().map(parameter).collect();
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        value["requestBody"] = payload(body);
    }
    match operation.who {
        Who::Anyone => value["security"] = json!([]),
        Who::Shown => value["security"] = security(),
        Who::May(act) => {
            value["security"] = security();
            let roles = Role::ALL.into_iter().filter(|role| role.may(act)).map(Role::name);
            value["x-roles"] = roles.collect::<Vec<_>>().into();
        }
    }
    value
}

fn security() -> Value {
    json!([{ "authorization": [] }, { "bearer": [] }, { "basic": [] }])
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.is_needed(),
        "description": parameter.about,
        "schema": schema::of(parameter.kind),
    })
}

fn payload(body: &Payload) -> Value {
    json!({
        "description": body.about,
        "required": body.is_needed,
        "content": content(&[(body.content, "", body.example)]),
    })
}

/// Media types with what may be in them. Several forms of JSON stand beside each other.
fn content(forms: &[(Content, &str, &str)]) -> Value {
    let mut types: BTreeMap<&str, Vec<(Value, &str, Value)>> = BTreeMap::new();
    for (content, when, example) in forms {
        let json = || serde_json::from_str(example).unwrap_or_default();
        let text = || Value::from(*example);
        let mut add = |kind, schema, example| {
            types.entry(kind).or_default().push((schema, *when, example));
        };
        match *content {
            Content::Nothing => {}
            Content::Json(kind) => add("application/json", schema::of(kind), json()),
            Content::JsonOrForm(kind) => {
                add("application/json", schema::of(kind), json());
                add("application/x-www-form-urlencoded", schema::of(kind), json());
            }
            Content::Text(kind) => add("text/plain; charset=utf-8", schema::of(kind), text()),
            Content::Bytes => add("application/octet-stream", json!({}), text()),
            Content::Stream => add("text/event-stream", json!({ "type": "string" }), text()),
        }
    }
    types.into_iter().map(|(kind, forms)| (kind.to_owned(), media(forms))).collect()
}

fn media(mut forms: Vec<(Value, &str, Value)>) -> Value {
    if forms.len() == 1
        && let Some((schema, _, example)) = forms.pop()
    {
        return json!({ "schema": schema, "example": example });
    }
    let examples: Map<String, Value> = forms
        .iter()
        .enumerate()
        .map(|(at, (_, when, example))| {
            (format!("{}", at + 1), json!({ "summary": when, "value": example }))
        })
        .collect();
    let schemas: Vec<Value> = forms
        .into_iter()
        .map(|(mut schema, when, _)| {
            schema["description"] = when.into();
            schema
        })
        .collect();
    json!({ "schema": { "anyOf": schemas }, "examples": examples })
}

fn responses(operation: &Operation, is_head: bool) -> Value {
    let mut by_status: BTreeMap<u16, Vec<&Success>> = BTreeMap::new();
    for success in operation.answers {
        by_status.entry(success.status).or_default().push(success);
    }
    let mut all = Map::new();
    for (status, answers) in by_status {
        all.insert(status.to_string(), answer(&answers, is_head));
    }
    let mut refusals: BTreeMap<u16, Vec<(String, String)>> = BTreeMap::new();
    for (status, message, when) in operation.all_refusals() {
        refusals.entry(status).or_default().push((message, when));
    }
    for (status, messages) in refusals {
        let is_it = |(message, when): &(String, String), it: &Refused| {
            (it.status, it.message, it.when) == (status, message, when)
        };
        let shared = SHARED.iter().find(|(_, it)| messages.iter().all(|told| is_it(told, it)));
        let answer = match shared {
            Some((name, _)) => json!({ "$ref": format!("#/components/responses/{name}") }),
            None => refused(status, messages, is_head),
        };
        all.insert(status.to_string(), answer);
    }
    all.into()
}

fn answer(answers: &[&Success], is_head: bool) -> Value {
    let when: Vec<&str> = answers.iter().map(|it| it.when).collect();
    let mut value = json!({ "description": when.join(" Or: ") });
    let forms: Vec<_> = answers.iter().map(|it| (it.content, it.when, it.example)).collect();
    let content = content(&forms);
    if !is_head && content.as_object().is_some_and(|types| !types.is_empty()) {
        value["content"] = content;
    }
    let headers = answers.iter().flat_map(|it| it.headers);
    let headers: Map<String, Value> = headers
        .map(|it| {
            let schema = schema::of(it.kind);
            let header =
                json!({ "description": it.about, "required": it.is_always, "schema": schema });
            (it.name.to_owned(), header)
        })
        .collect();
    if !headers.is_empty() {
        value["headers"] = headers.into();
    }
    value
}

fn refused(status: u16, messages: Vec<(String, String)>, is_head: bool) -> Value {
    let about: Vec<String> =
        messages.iter().map(|(message, when)| format!("`{message}`: {when}.")).collect();
    let mut value = json!({ "description": about.join(" ") });
    if !is_head {
        let examples: Map<String, Value> = messages
            .into_iter()
            .enumerate()
            .map(|(at, (message, when))| {
                let body = json!({ "error": true, "msg": message });
                ((at + 1).to_string(), json!({ "summary": when, "value": body }))
            })
            .collect();
        value["content"] = json!({ "application/json": {
            "schema": { "$ref": "#/components/schemas/Refusal" }, "examples": examples,
        } });
    }
    if [429, 503].contains(&status) {
        let about = "seconds after which it is worth trying again";
        value["headers"] = json!({ "Retry-After": {
            "description": about, "schema": { "type": "integer", "minimum": 1 },
        } });
    }
    value
}
