//! Tasks on their way: which comes first, for how long, and how they end.

use e2e::{Dispatch, Signal};
use serde_json::{Value, json};

#[test]
fn tasks_come_one_a_poll_in_the_order_they_were_sent() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let sent: Vec<_> = (0..5).map(|n| (admin.enqueue("a", &json!(n)), json!(n))).collect();
    let other = admin.enqueue("b", &json!("b's"));
    let taken: Vec<_> = (0..5).map(|_| agent.take()).collect();
    assert_eq!(taken, sent);
    assert!(agent.poll("wait=0").is_empty());
    assert_eq!(server.agent("b").take(), (other, json!("b's")));
}

#[test]
fn a_poll_takes_as_many_as_it_asks_for() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let sent: Vec<_> = (0..5).map(|n| (admin.enqueue("a", &json!(n)), json!(n))).collect();
    assert_eq!(agent.poll("wait=0&max=3"), sent[..3]);
    assert_eq!(agent.poll("wait=0&max=100"), sent[3..]);
}

#[test]
fn what_is_urgent_comes_first_and_equals_in_order() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for (name, more) in [
        ("plain1", ""),
        ("low", "&priority=-100"),
        ("high1", "&priority=100"),
        ("plain2", "&priority=0"),
        ("high2", "&priority=100"),
        ("middle", "&priority=1"),
    ] {
        let _ = admin.enqueue_with("a", more, &json!(name));
    }
    let order: Vec<Value> = (0..6).map(|_| agent.take().1).collect();
    assert_eq!(order, ["high1", "high2", "middle", "plain1", "plain2", "low"]);
}

#[test]
fn a_parked_poll_is_woken_by_its_own_task() {
    let server = Dispatch::start();
    let admin = server.admin();
    let polls: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let poll = server.agent(name).apart(|agent| agent.take().1);
            server.wait_until_online(name);
            poll
        })
        .into();
    for name in ["c", "a", "b"] {
        let _ = admin.enqueue(name, &json!(name));
    }
    let taken: Vec<Value> = polls.into_iter().map(|poll| poll.join().unwrap()).collect();
    assert_eq!(taken, ["a", "b", "c"]);
}

#[test]
fn the_first_result_wins() {
    let server = Dispatch::start();
    let asking = server.admin().apart(|admin| admin.post("/tasks?target=a", &json!(1)).ok());
    let agent = server.agent("a");
    let (id, _) = agent.take();
    for result in ["first", "second", "third", "fourth"] {
        agent.answer(&id, &json!(result));
    }
    assert_eq!(asking.join().unwrap()["result"], "first");
    assert_eq!(server.admin().task(&id)["result"], "first");
}

#[test]
fn a_result_that_is_nobodys_changes_nothing() {
    let server = Dispatch::start();
    let (admin, agent, foreign) = (server.admin(), server.agent("a"), server.agent("b"));
    let id = admin.enqueue("a", &json!(1));
    foreign.answer(&id, &json!("foreign, before it is taken"));
    assert_eq!(admin.task(&id)["state"], "queued");
    assert_eq!(agent.take().0, id);
    foreign.answer(&id, &json!("foreign"));
    agent.answer("999999", &json!("unknown"));
    agent.answer("0", &json!("unknown"));
    assert_eq!(admin.task(&id)["state"], "taken");
    agent.answer(&id, &json!("own"));
    assert_eq!(admin.task(&id)["result"], "own");
}

#[test]
fn a_result_can_be_waited_for_after_the_task_was_sent() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(admin.get(&format!("/tasks/{id}?wait=0")).ok()["task"]["state"], "queued");
    let path = format!("/tasks/{id}?wait=20");
    let waiting = admin.apart(move |admin| admin.get(&path).ok()["task"].clone());
    assert_eq!(agent.take().0, id);
    agent.answer(&id, &json!({"x": 1}));
    let task = waiting.join().unwrap();
    assert_eq!((&task["state"], &task["result"]), (&json!("done"), &json!({"x": 1})));
}

#[test]
fn a_task_tells_its_life() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue_with("a", "&priority=7&ttl=600", &json!({"do": 1}));
    let task = admin.task(&id);
    for (key, value) in [
        ("id", json!(id)),
        ("agent", json!("a")),
        ("state", json!("queued")),
        ("priority", json!(7)),
        ("attempts", json!(0)),
        ("by", json!("root")),
        ("body", json!({"do": 1})),
    ] {
        assert_eq!(task[key], value, "{key} of {task}");
    }
    let enqueued = task["enqueued_at"].as_u64().unwrap();
    assert_eq!(task["expires_at"].as_u64().unwrap(), enqueued + 600_000, "{task}");
    assert!(task.get("result").is_none() && task.get("ended_at").is_none(), "{task}");
    assert_eq!(agent.take().0, id);
    let task = admin.task(&id);
    assert_eq!((&task["state"], &task["attempts"]), (&json!("taken"), &json!(1)));
    let taken = task["taken_at"].as_u64().unwrap();
    agent.answer(&id, &json!([]));
    let task = admin.task(&id);
    let ended = task["ended_at"].as_u64().unwrap();
    assert!(enqueued <= taken && taken <= ended, "{task}");
}

#[test]
fn a_cancelled_task_is_never_delivered() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let (first, second) = (admin.enqueue("a", &json!(1)), admin.enqueue("a", &json!(2)));
    let said = admin.delete(&format!("/tasks/{first}")).ok();
    assert_eq!(said, json!({"error": false, "state": "cancelled"}));
    let _ = admin.delete(&format!("/tasks/{first}")).refused(409);
    assert_eq!(agent.take().0, second);
    assert!(agent.poll("wait=0").is_empty());
    assert_eq!(admin.task(&first)["state"], "cancelled");
    agent.answer(&second, &json!("done"));
    let _ = admin.delete(&format!("/tasks/{second}")).refused(409);
    assert_eq!(admin.task(&second)["state"], "done");
}

#[test]
fn who_waits_for_a_task_is_told_that_it_was_cancelled() {
    let server = Dispatch::start();
    let admin = server.admin();
    let asking = admin.apart(|admin| admin.post("/tasks?target=a", &json!(1)));
    let (id, _) = server.agent("a").take();
    assert_eq!(admin.delete(&format!("/tasks/{id}")).status, 200);
    let reply = asking.join().unwrap();
    assert_eq!(reply.refused(409), "Task was cancelled");
    assert_eq!(reply.json()["id"], json!(id));
    server.agent("a").answer(&id, &json!("too late"));
    assert_eq!(admin.task(&id)["state"], "cancelled");
}

#[test]
fn a_task_that_is_not_taken_in_time_expires() {
    let server = Dispatch::start();
    let admin = server.admin();
    let asking = admin.apart(|admin| admin.post("/tasks?target=a&ttl=1", &json!("short")));
    let id = admin.enqueue_with("a", "&ttl=1", &json!("short"));
    let kept = admin.enqueue_with("a", "&ttl=0", &json!("kept"));
    let task = admin.task_in(&id, "expired");
    assert!(task["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{task}");
    let said = asking.join().unwrap().refused(409);
    assert!(said.starts_with("Task expired"), "{said}");
    assert_eq!(server.agent("a").take(), (kept, json!("kept")));
    assert!(server.agent("a").poll("wait=0").is_empty());
}

#[test]
fn a_task_that_was_taken_in_time_does_not_expire_under_the_agent() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue_with("a", "&ttl=1", &json!(1));
    let later = admin.enqueue_with("b", "&ttl=1", &json!(1));
    assert_eq!(agent.take().0, id);
    let _ = admin.task_in(&later, "expired");
    agent.answer(&id, &json!("done"));
    assert_eq!(admin.task(&id)["state"], "done");
}

#[test]
fn several_targets_are_answered_in_their_order() {
    let server = Dispatch::start();
    let asking = server.admin().apart(|admin| {
        admin.post("/tasks?target=b,unknown,a,c&timeout=2", &json!({"type": "x"})).ok()
    });
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let (id, task) = server.agent(name).take();
        assert_eq!(task, json!({"type": "x"}));
        server.agent(name).answer(&id, &json!({"from": name}));
        ids.push(id);
    }
    let said = asking.join().unwrap();
    assert_eq!(said["error"], false, "{said}");
    let results = said["results"].as_array().unwrap();
    let of = |name: &str, id: &str| json!({"target": name, "id": id, "error": false, "result": {"from": name}});
    assert_eq!(results[0], of("b", &ids[1]));
    assert_eq!((&results[1]["target"], &results[1]["error"]), (&json!("unknown"), &json!(true)));
    assert!(results[1]["msg"].is_string(), "{said}");
    assert_eq!(results[2], of("a", &ids[0]));
    assert_eq!((&results[3]["target"], &results[3]["error"]), (&json!("c"), &json!(true)));
    assert_eq!(results[3]["timeout"], true, "{said}");
    assert_eq!(results[3]["msg"], "Time out while waiting for task result");
    let late = results[3]["id"].as_str().unwrap();
    assert_eq!(server.agent("c").take().0, late, "what was not taken is still there");
}

#[test]
fn several_targets_without_waiting_are_told_their_ids() {
    let server = Dispatch::start();
    server.add_account("ab", "agent");
    let admin = server.admin();
    let said = admin.post("/tasks?target=a,unknown,b&noWait=1", &json!(1)).ok();
    assert_eq!((&said["error"], &said["msg"]), (&json!(false), &json!("Tasks enqueued")));
    assert!(said["failed"]["unknown"].is_string(), "{said}");
    for name in ["a", "b"] {
        assert_eq!(json!(server.agent(name).take().0), said["ids"][name]);
    }
    let said = admin.post("/tasks?target=a*&noWait=1", &json!(2)).ok();
    for name in ["a", "ab"] {
        assert_eq!(json!(server.agent(name).take().0), said["ids"][name], "{said}");
    }
    assert_eq!(said["ids"].as_object().unwrap().len(), 2, "{said}");
}

#[test]
fn a_full_queue_refuses_more_and_goes_on() {
    let server = Dispatch::configured(&[("queue_max", "2")]);
    let (admin, agent) = (server.admin(), server.agent("a"));
    let (first, _) = (admin.enqueue("a", &json!(1)), admin.enqueue("a", &json!(2)));
    let reply = admin.post("/tasks?target=a&noWait=1", &json!(3));
    assert!((400..600).contains(&reply.status), "{}", reply.status);
    let _ = reply.refused(reply.status);
    assert!(!admin.enqueue("b", &json!(1)).is_empty(), "another's queue is another");
    assert_eq!(agent.take().0, first);
    let _ = admin.enqueue("a", &json!(4));
    let order = [agent.take().1, agent.take().1];
    assert_eq!(order, [json!(2), json!(4)]);
}

#[test]
fn everything_acknowledged_outlives_the_server() {
    let mut server = Dispatch::start();
    let admin = server.admin();
    let queued: Vec<_> = (0..3).map(|n| (admin.enqueue("a", &json!(n)), json!(n))).collect();
    let taken = admin.enqueue("b", &json!("taken"));
    assert_eq!(server.agent("b").take().0, taken);
    server.agent("b").answer(&taken, &json!("result"));
    server.agent("b").report(&json!("event"));
    let cancelled = admin.enqueue("c", &json!("cancelled"));
    assert_eq!(admin.delete(&format!("/tasks/{cancelled}")).status, 200);
    let mut last: u64 = cancelled.parse().unwrap();
    for signal in [Signal::KILL, Signal::TERM] {
        server.restart(signal);
        let admin = server.admin();
        assert_eq!(admin.task(&taken)["result"], "result");
        assert_eq!(admin.get("/events?agent=b").ok()["events"], json!(["event"]));
        assert_eq!(admin.task(&cancelled)["state"], "cancelled");
        let id = admin.enqueue("c", &json!("new"));
        assert!(id.parse::<u64>().unwrap() > last, "no id is used twice: {id} after {last}");
        last = id.parse().unwrap();
    }
    let again: Vec<_> = (0..3).map(|_| server.agent("a").take()).collect();
    assert_eq!(again, queued);
    assert!(server.agent("a").poll("wait=0").is_empty());
    assert!(server.agent("b").poll("wait=0").is_empty());
}

#[test]
fn a_result_may_come_to_the_next_server() {
    let mut server = Dispatch::start();
    let id = server.admin().enqueue("a", &json!(1));
    assert_eq!(server.agent("a").take().0, id);
    server.restart(Signal::TERM);
    server.agent("a").answer(&id, &json!("late but first"));
    assert_eq!(server.admin().task(&id)["result"], "late but first");
}

#[test]
fn an_id_is_not_used_again_after_the_newest_task_and_its_agent_are_gone() {
    let mut server = Dispatch::start();
    let last = server.admin().enqueue("c", &json!(1));
    assert_eq!(server.admin().delete("/agents?id=c").status, 200);
    server.restart(Signal::TERM);
    let id = server.admin().enqueue("a", &json!(1));
    assert!(id.parse::<u64>().unwrap() > last.parse().unwrap(), "{id} after {last}");
}
