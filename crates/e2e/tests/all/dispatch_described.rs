//! The description of the routes against the routes: who may, which methods, which limits.

use std::collections::BTreeSet;

use e2e::{Caller, Dispatch, Reply, fits};
use serde_json::Value;

/// One method at one path.
struct Operation<'a> {
    path: &'a str,
    method: String,
    value: &'a Value,
}

pub(crate) fn description(server: &Dispatch) -> Value {
    server.nobody().get("/openapi.json").ok()
}

fn operations(description: &Value) -> Vec<Operation<'_>> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, value)| Operation {
                path,
                method: method.to_uppercase(),
                value,
            })
        })
        .collect()
}

impl Operation<'_> {
    fn parameters(&self) -> impl Iterator<Item = &Value> {
        let all = self.value["parameters"].as_array().into_iter().flatten();
        all.filter(|it| it["in"] == "query")
    }

    /// A request with every needed parameter but `without`, and `more`.
    fn target(&self, without: &str, more: &str) -> String {
        let path = self.path.replace("{id}", "1").replace("{name}", "x");
        let needed = self.parameters().filter(|it| it["required"] == true && it["name"] != without);
        let needed: String =
            needed.map(|it| format!("{}=1&", it["name"].as_str().unwrap())).collect();
        format!("{path}?{needed}{more}")
    }

    fn roles(&self) -> BTreeSet<&str> {
        self.value["x-roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn name(&self) -> &str {
        self.value["operationId"].as_str().unwrap()
    }

    /// Whether a refusal stands in the description word for word.
    fn check_described(&self, description: &Value, reply: &Reply) {
        let mut answer = &self.value["responses"][reply.status.to_string()];
        if let Some(shared) = answer["$ref"].as_str() {
            answer = description.pointer(shared.trim_start_matches('#')).unwrap();
        }
        let examples = answer.pointer("/content/application~1json/examples");
        let examples = examples.and_then(Value::as_object).into_iter().flatten();
        let mut told = examples.map(|(_, example)| &example["value"]);
        let said = reply.json();
        assert!(told.any(|it| *it == said), "{}: {} {said}", self.name(), reply.status);
    }
}

/// Someone who may ask for it.
fn whoever_may<'a>(operation: &Operation<'_>, admin: &'a Caller, agent: &'a Caller) -> &'a Caller {
    if operation.roles().contains("admin") { admin } else { agent }
}

#[test]
fn only_the_roles_that_are_described_are_let_in() {
    let server = Dispatch::start();
    let description = description(&server);
    let callers = [
        ("admin", server.admin()),
        ("operator", server.role("o", "operator")),
        ("viewer", server.role("v", "viewer")),
        ("agent", server.agent("a")),
    ];
    for operation in operations(&description) {
        let roles = operation.roles();
        if roles.is_empty() || operation.method == "HEAD" {
            continue;
        }
        let refused = |caller: &Caller| {
            let reply = caller.request(&operation.method, &operation.target("", "")).send();
            assert_eq!(reply.refused(403), "Authorization failure", "{}", operation.name());
            operation.check_described(&description, &reply);
        };
        refused(&server.nobody());
        callers.iter().filter(|(role, _)| !roles.contains(role)).for_each(|(_, it)| refused(it));
    }
}

#[test]
fn only_the_methods_that_are_described_are_answered() {
    let server = Dispatch::start();
    let description = description(&server);
    for (path, methods) in description["paths"].as_object().unwrap() {
        let described: BTreeSet<String> =
            methods.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect();
        let target = path.replace("{id}", "1").replace("{name}", "x");
        let reply = server.nobody().request("PROPFIND", &target).send();
        let _ = reply.refused(405);
        let allowed = reply.header("allow").unwrap().split(", ");
        assert_eq!(allowed.map(str::to_owned).collect::<BTreeSet<_>>(), described, "{path}");
    }
}

#[test]
fn numbers_have_the_limits_that_are_described() {
    let server = Dispatch::start();
    let description = description(&server);
    let (admin, agent) = (server.admin(), server.agent("a"));
    let mut count = 0;
    for operation in operations(&description).iter().filter(|it| it.method != "HEAD") {
        for parameter in operation.parameters() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let (Some(least), Some(greatest)) =
                (schema["minimum"].as_i64(), schema["maximum"].as_u64())
            else {
                continue;
            };
            for wrong in [i128::from(least) - 1, i128::from(greatest) + 1] {
                let target = operation.target(name, &format!("{name}={wrong}"));
                let caller = whoever_may(operation, &admin, &agent);
                let reply = caller.request(&operation.method, &target).send();
                let expected =
                    format!("'{name}' must be a whole number from {least} to {greatest}");
                assert_eq!(reply.refused(400), expected, "{}", operation.name());
                operation.check_described(&description, &reply);
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count} limits were tried");
}

#[test]
fn what_is_needed_is_asked_for_in_the_words_that_are_described() {
    let server = Dispatch::start();
    assert_eq!(server.admin().request("POST", "/agents_selfreg?enabled=1").send().status, 200);
    let description = description(&server);
    let (admin, agent) = (server.admin(), server.agent("a"));
    for operation in operations(&description).iter().filter(|it| it.method != "HEAD") {
        let needed = operation.parameters().filter(|it| it["required"] == true);
        for name in needed.map(|it| it["name"].as_str().unwrap()) {
            let target = operation.target(name, "");
            let caller = whoever_may(operation, &admin, &agent);
            let reply = caller.request(&operation.method, &target).send();
            assert!(reply.status >= 400, "{} without {name}", operation.name());
            operation.check_described(&description, &reply);
        }
    }
}

#[test]
fn examples_are_what_their_schemas_say() {
    fn walk(value: &Value, count: &mut usize) {
        if let Some(schema) = value.get("schema").filter(|it| it.get("$ref").is_none()) {
            let mut examples: Vec<&Value> = value.get("example").into_iter().collect();
            let named = value.get("examples").and_then(Value::as_object).into_iter().flatten();
            examples.extend(named.map(|(_, example)| &example["value"]));
            for example in examples {
                fits(schema, example).unwrap_or_else(|error| panic!("{example}: {error}"));
                *count += 1;
            }
        }
        match value {
            Value::Object(fields) => fields.values().for_each(|it| walk(it, count)),
            Value::Array(items) => items.iter().for_each(|it| walk(it, count)),
            _ => {}
        }
    }
    let server = Dispatch::start();
    let mut count = 0;
    walk(&description(&server)["paths"], &mut count);
    assert!(count > 60, "{count} examples were tried");
}
