//! What was made for a client that does not learn of it.

use machines::manager::Telling;

use super::*;

/// A door whose verbs make machines, of which it is said when they are taken back.
async fn making() -> (Opened, mpsc::UnboundedReceiver<&'static str>) {
    let (tell, told) = mpsc::unbounded_channel();
    let verbs = verbs();
    for verb in ["KEEP", "REFUSE", "BREAK", "CLOSE", "LEAVE"] {
        let tell = tell.clone();
        let handler = Handler::new(move |call: Call| {
            let tell = tell.clone();
            async move {
                let undone = tell.clone();
                let make = |what: &'static str| {
                    call.client.is_to_know(Handover::new(move |telling| {
                        if telling == Telling::Failed {
                            undone.send(what).unwrap();
                        }
                    }));
                };
                match verb {
                    "LEAVE" => {
                        tell.send("begun").unwrap();
                        call.client.ended().await;
                        make("left");
                    }
                    _ => make(verb),
                }
                match verb {
                    "REFUSE" => return call.refuse(&Complaint::Refused),
                    "BREAK" => panic!("as the test wants"),
                    "CLOSE" => {
                        call.client.close();
                        std::future::pending::<()>().await;
                    }
                    _ => {}
                }
                Response::ok(serde_json::Map::new())
            }
        });
        verbs.set(verb, handler).unwrap();
    }
    (open(settings(), verbs, None).await, told)
}

#[tokio::test]
async fn what_was_made_is_undone_unless_an_answer_of_success_tells_of_it() {
    let (mut opened, mut told) = making().await;
    let address = opened.address;
    assert!(ask(address, "KEEP", json!({})).await.unwrap().success);
    assert_eq!(ask(address, "REFUSE", json!({})).await.unwrap().message, "Refused request");
    assert_eq!(told.recv().await, Some("REFUSE"));
    assert_eq!(ask(address, "BREAK", json!({})).await.unwrap().message, "Internal error");
    assert_eq!(told.recv().await, Some("BREAK"));
    assert!(ask(address, "CLOSE", json!({})).await.is_err());
    assert_eq!(told.recv().await, Some("CLOSE"));
    let leaving = begin_to_ask(address, &request("LEAVE", json!({}))).await;
    assert_eq!(told.recv().await, Some("begun"));
    drop(leaving);
    assert_eq!(told.recv().await, Some("left"));
    opened.drain.send_replace(Some(Duration::from_secs(5)));
    opened.running.join_next().await.unwrap().unwrap();
    assert!(told.try_recv().is_err(), "what was told of stays");
}

#[tokio::test]
async fn what_is_made_after_the_session_is_to_be_undone_at_once() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let listening: Listening = Arc::new(move |event| {
        if let Event::ClientClosed(client) = event {
            tell.send(client).unwrap();
        }
        Box::pin(async {})
    });
    let opened = open(settings(), verbs(), Some(listening)).await;
    assert!(ask(opened.address, "STAT", json!({})).await.unwrap().success);
    let client = told.recv().await.unwrap();
    assert!(client.is_closed());
    let (tell, mut undone) = mpsc::unbounded_channel();
    client.is_to_know(Handover::new(move |telling| tell.send(telling).unwrap()));
    assert_eq!(undone.try_recv(), Ok(Telling::Failed));
}
