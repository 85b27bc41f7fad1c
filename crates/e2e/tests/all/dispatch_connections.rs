//! Agents whose connections go, and agents with too many: every task to exactly one of them.

use std::collections::BTreeSet;

use e2e::{Connection, Dispatch, Signal};
use serde_json::json;

/// How a connection of an agent goes.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is closed in order.
    Fin,
    /// It is reset.
    Rst,
}

impl End {
    fn befall(self, connection: Connection) {
        match self {
            Self::Fin => drop(connection),
            Self::Rst => connection.reset(),
        }
    }
}

fn check_gone_before(end: End) {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for n in 0..4 {
        end.befall(server.parked("a"));
        let id = admin.enqueue("a", &json!(n));
        assert_eq!(agent.take(), (id.clone(), json!(n)), "{end:?}");
        agent.answer(&id, &json!("done"));
    }
    assert!(agent.poll("wait=2").is_empty(), "and no task twice");
}

#[test]
fn a_task_never_goes_to_a_poll_that_was_closed_before() {
    check_gone_before(End::Fin);
}

#[test]
fn a_task_never_goes_to_a_poll_that_was_reset_before() {
    check_gone_before(End::Rst);
}

#[test]
fn a_task_on_a_connection_that_is_reset_at_once_is_offered_again_in_its_place() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let parked = server.parked("a");
    let first = admin.enqueue("a", &json!("first"));
    let second = admin.enqueue("a", &json!("second"));
    let _ = admin.task_in(&first, "taken");
    // The answer lies unread, as when the agent died: the system resets the connection.
    parked.reset();
    let _ = admin.task_in(&first, "queued");
    assert_eq!(agent.take().0, first);
    assert_eq!(agent.take().0, second);
    assert!(agent.poll("wait=2").is_empty());
    agent.answer(&first, &json!("done"));
    assert_eq!(admin.task(&first)["result"], "done");
}

#[test]
fn who_was_parked_meanwhile_gets_what_a_reset_gave_back() {
    let server = Dispatch::start();
    let admin = server.admin();
    let parked = server.parked("a");
    let id = admin.enqueue("a", &json!(1));
    let _ = admin.task_in(&id, "taken");
    let other = server.agent("a").apart(|agent| agent.take().0);
    parked.reset();
    assert_eq!(other.join().unwrap(), id);
}

#[test]
fn a_connection_closed_after_its_answer_was_read_keeps_its_task() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let mut parked = server.parked("a");
    let id = admin.enqueue("a", &json!(1));
    let reply = parked.read_reply();
    assert_eq!(reply.ok()["events"], json!({id.as_str(): 1}));
    drop(parked);
    assert!(agent.poll("wait=2").is_empty(), "it has been delivered");
    agent.answer(&id, &json!("done"));
    assert_eq!(admin.task(&id)["result"], "done");
}

#[test]
fn a_task_that_was_answered_is_not_offered_again_by_a_reset() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let mut parked = server.parked("a");
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(parked.read_reply().status, 200);
    agent.answer(&id, &json!("done"));
    parked.reset();
    assert!(agent.poll("wait=2").is_empty());
    assert_eq!(admin.task(&id)["state"], "done");
}

#[test]
fn one_connection_serves_an_agent_for_long() {
    let server = Dispatch::start();
    let (admin, mut connection) = (server.admin(), server.connect());
    for n in 0..20 {
        let id = admin.enqueue("a", &json!(n));
        let head = "Host: x\r\nAuthorization: a:pw-a\r\n";
        connection.write(format!("GET /tasks HTTP/1.1\r\n{head}\r\n"));
        assert_eq!(connection.read_reply().ok()["events"], json!({id.as_str(): n}));
        let result =
            format!("POST /tasks_result?id={id} HTTP/1.1\r\n{head}Content-Length: 4\r\n\r\n");
        connection.write(format!("{result}true"));
        let reply = connection.read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, ""));
        assert_eq!(admin.task(&id)["result"], true);
    }
}

#[test]
fn fifty_polls_of_one_agent_share_its_tasks() {
    let server = Dispatch::start();
    let admin = server.admin();
    let polls: Vec<_> = (0..50)
        .map(|_| {
            server.agent("a").apart(|agent| {
                let mut taken = Vec::new();
                // The end is a task of its own: no poll waits in vain.
                loop {
                    let (id, task) = agent.take();
                    if task == "end" {
                        return taken;
                    }
                    taken.push(id);
                }
            })
        })
        .collect();
    let senders: Vec<_> = (0..4)
        .map(|_| admin.apart(|admin| (0..50).map(|n| admin.enqueue("a", &json!(n))).collect()))
        .collect();
    let sent: BTreeSet<String> =
        senders.into_iter().flat_map(|sender| -> Vec<String> { sender.join().unwrap() }).collect();
    for _ in 0..50 {
        let _ = admin.enqueue("a", &json!("end"));
    }
    let taken: Vec<String> = polls.into_iter().flat_map(|poll| poll.join().unwrap()).collect();
    assert_eq!(taken.len(), 200, "each once");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), sent);
}

#[test]
fn two_hundred_polls_of_one_agent_that_is_not_known_yet_are_all_served() {
    // As after a restart, when everyone comes back at once.
    let server = Dispatch::start();
    let mut polls: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for poll in &mut polls {
        poll.write("GET /tasks?wait=0 HTTP/1.1\r\nHost: x\r\nAuthorization: a:pw-a\r\n\r\n");
    }
    for mut poll in polls {
        assert_eq!(poll.read_reply().ok()["events"], json!({}));
    }
}

#[test]
fn fifty_polls_that_have_gone_take_nothing() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let gone: Vec<_> = (0..50).map(|_| server.parked("a")).collect();
    for (index, connection) in gone.into_iter().enumerate() {
        let end = if index % 2 == 0 { End::Fin } else { End::Rst };
        end.befall(connection);
    }
    let sent: BTreeSet<_> = (0..10).map(|n| admin.enqueue("a", &json!(n))).collect();
    let mut taken = Vec::new();
    while taken.len() < 10 {
        let (id, _) = agent.take();
        agent.answer(&id, &json!("done"));
        taken.push(id);
    }
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), sent);
    assert!(agent.poll("wait=2").is_empty());
}

#[test]
fn an_admin_that_hangs_up_does_not_take_its_task_along() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let token = server.login("root", "pw-root");
    for end in [End::Fin, End::Rst] {
        let mut connection = server.connect();
        let head = format!("Host: x\r\nAuthorization: {token}\r\nContent-Length: 3\r\n");
        connection.write(format!("POST /tasks?target=a HTTP/1.1\r\n{head}\r\n\"x\""));
        let (id, _) = agent.take();
        end.befall(connection);
        agent.answer(&id, &json!("kept"));
        assert_eq!(admin.task(&id)["result"], "kept", "{end:?}");
    }
}

#[test]
fn many_admins_and_agents_at_once_each_get_their_own_answer() {
    let server = Dispatch::start();
    let agents: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            server.agent(name).apart(move |agent| {
                loop {
                    let (id, task) = agent.take();
                    agent.answer(&id, &json!([name, task]));
                    if task == "end" {
                        return;
                    }
                }
            })
        })
        .into();
    let admins: Vec<_> = (0..8)
        .map(|number| {
            server.admin().apart(move |admin| {
                for n in 0..40 {
                    let name = ["a", "b", "c"][(number + n) % 3];
                    let task = json!(format!("{number}-{n}"));
                    let said = admin.post(&format!("/tasks?target={name}"), &task).ok();
                    assert_eq!(said["result"], json!([name, task]));
                }
            })
        })
        .collect();
    for admin in admins {
        admin.join().unwrap();
    }
    for name in ["a", "b", "c"] {
        let _ = server.admin().enqueue(name, &json!("end"));
    }
    for agent in agents {
        agent.join().unwrap();
    }
}

#[test]
fn what_comes_for_an_agent_or_from_it_while_it_is_removed_is_kept_nowhere() {
    let mut server = Dispatch::start();
    let admin = server.admin();
    let before = admin.enqueue("b", &json!(1));
    let token = server.login("root", "pw-root");
    let begin = |request: &str, who: &str| {
        let mut connection = server.connect();
        connection.write(format!(
            "POST {request} HTTP/1.1\r\nHost: x\r\nAuthorization: {who}\r\nContent-Length: 4\r\n\
             Expect: 100-continue\r\n\r\n"
        ));
        // All but the body has been looked at.
        assert_eq!(connection.read_reply().status, 100);
        connection
    };
    let mut sent = begin("/tasks?target=a", &token);
    let mut reported = begin("/events", "a:pw-a");
    assert_eq!(admin.delete("/agents?id=a").status, 200);
    assert_eq!(sent.write("true").read_reply().refused(409), "Agent deregistered");
    let _ = reported.write("true").read_reply().refused(403);
    // Nothing is left that a new start would have to forget.
    server.restart(Signal::TERM);
    assert!(!server.log().so_far().contains("forgotten"), "{}", server.log().so_far());
    assert_eq!(server.admin().task(&before)["state"], "queued");
}
