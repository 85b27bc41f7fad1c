//! Every answer that the description of the routes names, from a real server: status, headers and each field.

use std::collections::BTreeSet;

use e2e::{Caller, Dispatch, Reply, Request, Stream, fits, form, program, run_reading, wait_until};
use serde_json::{Value, json};

use crate::dispatch_described::description;

/// What is described, and which of it has been seen: method, path, status, and which of several forms.
struct Witness {
    description: Value,
    seen: BTreeSet<(String, String, String, usize)>,
}

impl Witness {
    /// Sends a request to the route `path` at `target` and checks the answer, which must be no refusal.
    fn see(&mut self, path: &str, caller: &Caller, method: &str, target: &str) -> Reply {
        self.see_with(path, caller, method, target, |request| request)
    }

    fn post(&mut self, path: &str, caller: &Caller, target: &str, body: &Value) -> Reply {
        self.see_with(path, caller, "POST", target, |request| request.json(body))
    }

    fn see_with(
        &mut self,
        path: &str,
        caller: &Caller,
        method: &str,
        target: &str,
        with: impl Fn(Request) -> Request,
    ) -> Reply {
        let reply = with(caller.request(method, target)).send();
        self.check(path, method, &reply);
        if method == "GET" && self.description["paths"][path].get("head").is_some() {
            let head = with(caller.request("HEAD", target)).send();
            assert!(head.body.is_empty(), "HEAD {target}");
            self.check(path, "HEAD", &head);
        }
        reply
    }

    fn check(&mut self, path: &str, method: &str, reply: &Reply) {
        let at = format!("{method} {path}: {} {}", reply.status, reply.text());
        assert!(reply.status < 400, "{at}");
        let operation = &self.description["paths"][path][method.to_lowercase()];
        let answer = &operation["responses"][reply.status.to_string()];
        assert!(answer.is_object(), "this is not described: {at}");
        for (name, header) in answer["headers"].as_object().into_iter().flatten() {
            match reply.header(name) {
                None => assert_eq!(header["required"], false, "{name}: {at}"),
                Some(value) => check_header(&header["schema"], value, &at),
            }
        }
        let which = match answer["content"].as_object() {
            None => {
                assert!(reply.body.is_empty(), "{at}");
                0
            }
            Some(types) => {
                let kind = reply.header("content-type").unwrap_or_default();
                let media = types.get(kind).unwrap_or_else(|| panic!("{kind} for {at}"));
                which_form(&media["schema"], kind, reply, &at)
            }
        };
        let seen = (method.to_lowercase(), path.to_owned(), reply.status.to_string(), which);
        self.seen.insert(seen);
    }

    /// Everything that is described and is no refusal.
    fn wanted(&self) -> BTreeSet<(String, String, String, usize)> {
        let mut wanted = BTreeSet::new();
        for (path, methods) in self.description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap().iter();
                for (status, answer) in answers.filter(|(status, _)| status.as_str() < "400") {
                    let forms = &answer["content"]["application/json"]["schema"]["anyOf"];
                    for which in 0..forms.as_array().map_or(1, Vec::len) {
                        // A range means nothing to HEAD.
                        if (method.as_str(), status.as_str()) != ("head", "206") {
                            wanted.insert((method.clone(), path.clone(), status.clone(), which));
                        }
                    }
                }
            }
        }
        wanted
    }
}

fn check_header(schema: &Value, value: &str, at: &str) {
    let value = match schema["type"].as_str() {
        Some("integer") => value.parse::<u64>().unwrap().into(),
        _ => Value::from(value),
    };
    fits(schema, &value).unwrap_or_else(|error| panic!("{error} in a header of {at}"));
}

fn which_form(schema: &Value, kind: &str, reply: &Reply, at: &str) -> usize {
    let value = match kind {
        "application/json" => reply.json(),
        _ => reply.text().into(),
    };
    if schema.get("anyOf").is_some() {
        let form = form(schema, &value).unwrap();
        return form.unwrap_or_else(|| panic!("none of the forms is {at}"));
    }
    fits(schema, &value).unwrap_or_else(|error| panic!("{error} in {at}"));
    0
}

#[test]
fn every_answer_is_as_it_is_described() {
    let server = Dispatch::configured(&[("wait_secs", "1")]);
    let mut witness = Witness { description: description(&server), seen: BTreeSet::new() };
    itself_and_sessions(&mut witness, &server);
    agents(&mut witness, &server);
    sending(&mut witness, &server);
    working(&mut witness, &server);
    events(&mut witness, &server);
    webhooks(&mut witness, &server);
    files(&mut witness, &server);
    later_tasks(&mut witness, &server);
    let wanted = witness.wanted();
    let missing: Vec<_> = wanted.difference(&witness.seen).collect();
    assert!(missing.is_empty(), "nobody has seen {missing:#?}");
}

const LATER: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

fn itself_and_sessions(witness: &mut Witness, server: &Dispatch) {
    let nobody = server.nobody();
    let _ = witness.see("/healthz", &nobody, "GET", "/healthz");
    let _ = witness.see("/openapi.json", &nobody, "GET", "/openapi.json");
    let body = json!({"user": "root", "pass": "pw-root"});
    let said = witness.post("/login", &nobody, "/login", &body).json();
    let caller = server.caller(said["token"].as_str().unwrap());
    let _ = witness.see("/logout", &caller, "POST", "/logout");
    let arguments = ["addpasscode", "tasks.db"];
    let exit = run_reading(&program(), &arguments, &server.path(""), "correct-horse\n");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for method in LATER {
        let target = "/sutrc/api/login?token=correct-horse";
        let _ = witness.see("/sutrc/api/login", &nobody, method, target);
        let _ = witness.see("/sutrc/api/logout", &caller, method, "/sutrc/api/logout");
    }
}

fn agents(witness: &mut Witness, server: &Dispatch) {
    let (admin, nobody) = (server.admin(), server.nobody());
    for root in ["", "/sutrc/api"] {
        for spelling in ["agents_selfreg", "agent_selfreg"] {
            let path = format!("{root}/{spelling}");
            let _ = witness.see(&path, &admin, "POST", &format!("{path}?enabled=1"));
            let _ = witness.see(&path, &admin, "GET", &path);
        }
        let path = format!("{root}/agents");
        let _ = witness.see(&path, &admin, "GET", &path);
        let who = if root.is_empty() { "user=new&pass=x" } else { "name=new&hwid=x" };
        let _ = witness.see(&path, &nobody, "POST", &format!("{path}?{who}"));
        let _ = witness.see(&path, &admin, "PATCH", &format!("{path}?id=new&newId=old"));
        let _ = witness.see(&path, &admin, "DELETE", &format!("{path}?id=old"));
    }
    let said = witness.see("/enroll_tokens", &admin, "POST", "/enroll_tokens").json();
    let body = json!({"token": said["token"], "name": "enrolled"});
    let _ = witness.post("/enroll", &nobody, "/enroll", &body);
}

fn sending(witness: &mut Witness, server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("a"));
    let task = json!({"do": 1});
    let _ = witness.post("/tasks", &admin, "/tasks?target=a&timeout=0", &task);
    let _ = witness.see("/tasks", &agent, "GET", "/tasks?wait=1");
    let said = witness.post("/tasks", &admin, "/tasks?target=a&noWait=1", &task).json();
    let id = said["id"].as_str().unwrap();
    let _ = witness.see("/tasks/{id}", &admin, "DELETE", &format!("/tasks/{id}"));
    let _ = witness.post("/tasks", &admin, "/tasks?target=a,x&noWait=1", &task);
    let worker = agent.apart(|agent| {
        let (first, second) = (agent.take().0, agent.take().0);
        agent.answer(&first, &json!({}));
        agent.answer(&second, &json!({}));
        let third = agent.take().0;
        agent.answer(&third, &json!({}));
    });
    let _ = witness.post("/tasks", &admin, "/tasks?target=a,x&timeout=20", &task);
    let _ = witness.post("/tasks", &admin, "/tasks?target=a&timeout=20", &task);
    worker.join().unwrap();
    let _ = witness.post("/tasks", &admin, "/tasks?target=b,c&timeout=0", &task);
    let _ = witness.see("/tasks_history", &admin, "GET", "/tasks_history?limit=2");
    let _ = witness.see("/tasks_history", &admin, "GET", "/tasks_history");
}

fn working(witness: &mut Witness, server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue_with("a", "&ttl=60", &json!(1));
    let said = witness.see("/tasks", &agent, "GET", "/tasks?lease=60").json();
    let claim = said["claims"][&id].as_str().unwrap().to_owned();
    let of = |path: &str| format!("{path}?id={id}&claim={claim}");
    let _ = witness.see("/tasks_lease", &agent, "POST", &of("/tasks_lease"));
    let piece = |request: Request| request.body("application/octet-stream", "hello");
    let _ = witness.see_with("/tasks_output", &agent, "POST", &of("/tasks_output"), piece);
    let _ = witness.post("/tasks_result", &agent, &of("/tasks_result"), &json!(null));
    let unknown = "/task_result?id=999999";
    let _ = witness.post("/task_result", &agent, unknown, &json!(null));
    let late = agent.post(&of("/tasks_result"), &json!("late")).refused(409);
    assert_eq!(late, "The claim is no longer held; the result was kept as a late one");
    let shown = witness.see("/tasks/{id}", &admin, "GET", &format!("/tasks/{id}")).json();
    assert_eq!(shown["task"]["late"][0]["result"], "late", "{shown}");
    let target = format!("/tasks/{id}/output");
    let reply = witness.see("/tasks/{id}/output", &admin, "GET", &target);
    assert_eq!((reply.text().as_str(), reply.header("x-output-end")), ("hello", Some("1")));
}

fn events(witness: &mut Witness, server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("a"));
    let _ = witness.post("/events", &agent, "/events", &json!({"n": 1}));
    let _ = witness.see("/events", &admin, "GET", "/events?agent=a");
    let _ = witness.see("/events", &admin, "GET", "/events?agent=a&details=1");
    let head = admin.request("HEAD", "/events/stream").send();
    witness.check("/events/stream", "HEAD", &head);
    let token = server.login("root", "pw-root");
    // A stream has no end: the harness has a reader of its own, which checks its status and type.
    let authorization = format!("Authorization: {token}\r\n");
    let message = Stream::open(server, "/events/stream?after=0", &authorization).read();
    assert_eq!((message.event.as_str(), &message.data["agent"]), ("event", &json!("a")));
    witness.seen.insert(("get".into(), "/events/stream".into(), "200".into(), 0));
}

fn webhooks(witness: &mut Witness, server: &Dispatch) {
    let admin = server.admin();
    let body = json!({"url": "http://127.0.0.1:9/", "agents": ["b"]});
    let said = witness.post("/webhooks", &admin, "/webhooks", &body).json();
    let _ = witness.see("/webhooks", &admin, "GET", "/webhooks");
    let target = format!("/webhooks?id={}", said["id"].as_str().unwrap());
    let _ = witness.see("/webhooks", &admin, "DELETE", &target);
    let _ = witness.see("/audit", &admin, "GET", "/audit");
    let _ = witness.see("/audit", &admin, "GET", "/audit?limit=1");
}

fn files(witness: &mut Witness, server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("a"));
    for root in ["/files", "/sutrc/api/filedrop", "/sutrc/filedrop"] {
        let body = |request: Request| request.body("application/octet-stream", "hello\n");
        let put = format!("{root}/{{name}}");
        let reply = witness.see_with(&put, &agent, "POST", &format!("{root}/x"), body);
        let text = reply.text();
        let url = match root {
            "/files" => reply.json()["url"].as_str().unwrap().to_owned(),
            _ => text[text.find("/sutrc").unwrap()..].to_owned(),
        };
        let get = format!("{root}/{{id}}/{{name}}");
        let url = format!("{root}{}", &url[url.find("/filedrop").map_or(6, |at| at + 9)..]);
        let reply = witness.see(&get, &admin, "GET", &url);
        assert_eq!(reply.text(), "hello\n");
        let etag = reply.header("etag").unwrap().to_owned();
        let same = |request: Request| request.header("if-none-match", etag.as_str());
        assert_eq!(witness.see_with(&get, &admin, "GET", &url, same).status, 304);
        let part = |request: Request| request.header("range", "bytes=0-2");
        assert_eq!(witness.see_with(&get, &admin, "GET", &url, part).status, 206);
        if root == "/files" {
            let _ = witness.see(&get, &admin, "DELETE", &url);
        }
    }
}

fn later_tasks(witness: &mut Witness, server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("b"));
    let task = json!({"type": "proclist"});
    let took = wait_until("the queue is empty", || {
        let said = witness.see("/sutrc/api/tasks", &agent, "GET", "/sutrc/api/tasks").json();
        (said == json!({})).then_some(said)
    });
    assert_eq!(took, json!({}));
    let target = "/sutrc/api/tasks?target=b,x&timeout=0";
    let _ = witness.post("/sutrc/api/tasks", &admin, target, &task);
    let worker = agent.apart(|agent| {
        let said = wait_until("a task", || {
            let said = agent.get("/sutrc/api/tasks").ok();
            (said != json!({})).then_some(said)
        });
        let id = said["id"].as_u64().unwrap();
        let target = format!("/sutrc/api/task_result?id={id}");
        assert_eq!(agent.post(&target, &json!({"procs": []})).status, 200);
    });
    let target = "/sutrc/api/tasks?target=b&timeout=20";
    let said = witness.post("/sutrc/api/tasks", &admin, target, &task).json();
    assert_eq!(said["results"][0]["procs"], json!([]), "{said}");
    worker.join().unwrap();
    for spelling in ["task_result", "tasks_result"] {
        let path = format!("/sutrc/api/{spelling}");
        let _ = witness.post(&path, &agent, &format!("{path}?id=1"), &json!({}));
    }
}
