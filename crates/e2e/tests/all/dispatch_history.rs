//! What was: tasks and results, page by page.

use e2e::{Caller, Dispatch};
use serde_json::{Value, json};

fn page(admin: &Caller, query: &str) -> (Vec<String>, Value) {
    let said = admin.get(&format!("/tasks_history{query}")).ok();
    let tasks = said["tasks"].as_array().unwrap_or_else(|| panic!("no array in {said}"));
    (tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect(), said)
}

#[test]
fn the_newest_come_first_page_by_page() {
    let server = Dispatch::start();
    let admin = server.admin();
    let mut sent: Vec<_> = (0..10).map(|n| admin.enqueue(["a", "b"][n % 2], &json!(n))).collect();
    sent.reverse();
    assert_eq!(page(&admin, "").0, sent);
    let (mut found, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let (ids, said) = page(&admin, &query);
        found.extend(ids);
        // Newer ones that come meanwhile change nothing of the older pages.
        let _ = admin.enqueue("c", &json!("later"));
        let Some(next) = said["next"].as_str() else { break };
        query = format!("?limit=3&before={next}");
    }
    assert_eq!(found, sent);
}

#[test]
fn it_is_asked_by_agent_and_by_state() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let (done, taken) = (admin.enqueue("a", &json!(1)), admin.enqueue("a", &json!(2)));
    let (cancelled, queued) = (admin.enqueue("a", &json!(3)), admin.enqueue("b", &json!(4)));
    for id in [&done, &taken] {
        assert_eq!(agent.take().0, *id);
    }
    agent.answer(&done, &json!("result"));
    assert_eq!(admin.delete(&format!("/tasks/{cancelled}")).status, 200);
    for (state, id) in
        [("done", &done), ("taken", &taken), ("cancelled", &cancelled), ("queued", &queued)]
    {
        let (ids, said) = page(&admin, &format!("?state={state}"));
        assert_eq!(ids, [id.as_str()], "{state}");
        assert_eq!(said["tasks"][0]["state"], state);
    }
    assert_eq!(page(&admin, "?agent=b").0, [queued]);
    assert_eq!(page(&admin, "?agent=a&state=done").0, [done]);
}

#[test]
fn large_results_are_left_out_of_the_list_but_kept() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let large = json!("x".repeat(5000));
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(agent.take().0, id);
    agent.answer(&id, &large);
    let (_, said) = page(&admin, "");
    assert!(said["tasks"][0].get("result").is_none_or(|result| *result != large), "left out");
    assert_eq!(admin.task(&id)["result"], large);
}

#[test]
fn a_late_result_is_kept_beside_the_first() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(agent.take().0, id);
    assert_eq!(admin.delete(&format!("/tasks/{id}")).status, 200);
    agent.answer(&id, &json!("done all the same"));
    let task = admin.task(&id);
    assert_eq!(task["state"], "cancelled");
    assert!(task.to_string().contains("done all the same"), "late results are kept: {task}");
}
