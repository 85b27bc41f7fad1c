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
        assert!(
            told.any(|it| it["msg"] == said["msg"]),
            "{}: {} {said}",
            self.name(),
            reply.status
        );
    }
}

/// Someone who may ask for it.
fn whoever_may<'a>(operation: &Operation<'_>, admin: &'a Caller, agent: &'a Caller) -> &'a Caller {
    if operation.roles().contains("admin") { admin } else { agent }
}

#[test]
fn exactly_the_roles_that_are_described_are_let_in() {
    let server = Dispatch::configured(&[("wait_secs", "1")]);
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
        // A stream has no end; its headers say enough.
        let method = if operation.path == "/events/stream" { "HEAD" } else { &operation.method };
        let ask = |caller: &Caller| caller.request(method, &operation.target("", "")).send();
        let reply = server.nobody().request(&operation.method, &operation.target("", "")).send();
        assert_eq!(reply.refused(403), "Authorization failure", "{}", operation.name());
        operation.check_described(&description, &reply);
        for (role, caller) in &callers {
            let is_let_in = ask(caller).status != 403;
            assert_eq!(is_let_in, roles.contains(role), "{role} and {}", operation.name());
        }
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

/// Asks for what is refused, and checks that the description of the route `path` has the refusal.
fn check_refused(
    description: &Value,
    caller: &Caller,
    (path, status): (&str, u16),
    (method, target, body): (&str, &str, &str),
) {
    let request = caller.request(method, target).body("application/octet-stream", body);
    let reply = request.send();
    let _ = reply.refused(status);
    let all = operations(description);
    let operation = all.iter().find(|it| it.path == path && it.method == method).unwrap();
    operation.check_described(description, &reply);
}

#[test]
fn a_sender_is_refused_as_it_is_described() {
    let server = Dispatch::start();
    let (description, admin) = (description(&server), server.admin());
    let done = admin.enqueue("a", &Value::Null);
    server.agent("a").answer(&server.agent("a").take().0, &Value::Null);
    let check = |path: &str, status, method: &str, target: &str, body: &str| {
        check_refused(&description, &admin, (path, status), (method, target, body));
    };
    check("/tasks", 404, "POST", "/tasks?target=web-9", "1");
    check("/tasks", 400, "POST", "/tasks?target=a", "{");
    check("/tasks", 400, "POST", "/tasks?target=a&target=b", "1");
    check("/tasks/{id}", 404, "GET", "/tasks/999", "");
    check("/tasks/{id}", 404, "DELETE", "/tasks/x", "");
    check("/tasks/{id}", 409, "DELETE", &format!("/tasks/{done}"), "");
    check("/tasks/{id}/output", 404, "GET", "/tasks/999/output", "");
    check("/tasks_history", 400, "GET", "/tasks_history?state=x", "");
    check("/tasks_history", 404, "GET", "/tasks_history?agent=web-9", "");
    check("/agents", 404, "DELETE", "/agents?id=web-9", "");
    check("/agents", 409, "PATCH", "/agents?id=a&newId=root", "");
    check("/agents", 400, "PATCH", "/agents?id=a&newId=a:b", "");
    check("/agents", 405, "POST", "/agents?user=x&pass=x", "");
    check("/agents_selfreg", 400, "POST", "/agents_selfreg?enabled=x", "");
    check("/enroll", 400, "POST", "/enroll", "{}");
    check("/enroll", 403, "POST", "/enroll", r#"{"token":"x","name":"x"}"#);
    check("/login", 403, "POST", "/login?user=root&pass=x", "");
    check("/webhooks", 404, "DELETE", "/webhooks?id=9", "");
    check("/webhooks", 400, "DELETE", "/webhooks?id=x", "");
    check("/webhooks", 400, "POST", "/webhooks", r#"{"url":"ftp://x/"}"#);
    check("/webhooks", 400, "POST", "/webhooks", r#"{"url":"http://a:b@x/"}"#);
    check("/webhooks", 400, "POST", "/webhooks", r#"{"url":"http://x/","secret":""}"#);
    check("/webhooks", 400, "POST", "/webhooks", r#"{"url":"http://x/","agents":[""]}"#);
    check("/events/stream", 400, "GET", "/events/stream?agent=a,", "");
    check("/files/{name}", 400, "POST", "/files/a%2Fb", "");
    check("/files/{id}/{name}", 404, "GET", "/files/1/x", "");
    check("/files/{id}/{name}", 404, "DELETE", "/files/1/x", "");
    check("/sutrc/api/tasks", 400, "POST", "/sutrc/api/tasks?target=a", "{}");
    check("/sutrc/api/tasks", 400, "POST", "/sutrc/api/tasks?target=a", "{");
    check("/sutrc/api/agents", 405, "POST", "/sutrc/api/agents?name=x&hwid=x", "");
}

#[test]
fn an_agent_is_refused_as_it_is_described() {
    let server = Dispatch::start();
    let (description, agent) = (description(&server), server.agent("a"));
    let id = server.admin().enqueue("a", &Value::Null);
    let taken = agent.get("/tasks?lease=60").ok();
    let claim = taken["claims"][&id].as_str().unwrap();
    let check = |path: &str, status, target: &str, body: &str| {
        check_refused(&description, &agent, (path, status), ("POST", target, body));
    };
    let of = |path: &str, more: &str| format!("{path}?id={id}&claim={claim}{more}");
    check("/events", 400, "/events", "{");
    for path in ["/tasks_result", "/task_result", "/sutrc/api/task_result"] {
        check(path, 400, &format!("{path}?id=x"), "{}");
        check(path, 400, &format!("{path}?id=1"), "{");
    }
    check("/sutrc/api/task_result", 400, "/sutrc/api/task_result?id=1", "[]");
    check("/tasks_result", 400, &format!("/tasks_result?id={id}&claim=x"), "1");
    check("/tasks_output", 409, &of("/tasks_output", "&offset=9"), "x");
    check("/tasks_lease", 409, &format!("/tasks_lease?id={id}&claim=999"), "");
    check("/tasks_result", 409, &format!("/tasks_result?id={id}&claim=999"), "1");
    assert_eq!(server.admin().delete(&format!("/tasks/{id}")).status, 200);
    check("/tasks_lease", 409, &of("/tasks_lease", ""), "");
    check("/tasks_output", 409, &of("/tasks_output", ""), "x");
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
