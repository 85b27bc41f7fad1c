//! What handlers are told, what they may end, and what they may do in the place of the server.

use std::sync::mpsc;

use super::*;

/// Answers STAT with its verb, and notes that it was asked.
fn count_stat(server: &ServerInterface) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let stat = move |_: &Client, _: &Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        Response::ok(Map::new())
    };
    server.set_request_handler(REQUEST_VERB_STAT, stat).unwrap();
    count
}

#[test]
fn closing_the_client_in_any_callback_ends_its_session() {
    type Set = fn(&ServerInterface);
    let cases: [(&str, Set); 5] = [
        ("STAT", |server| server.on_connection(Client::close)),
        ("STAT", |server| server.on_client(Client::close)),
        ("STAT", |server| server.on_request(Client::close)),
        ("stat", |server| server.on_malformed_request(|client, _| client.close())),
        ("NONE", |server| server.on_unknown_verb(Client::close)),
    ];
    for (verb, set) in cases {
        let (server, _folder) = server();
        let handled = count_stat(&server);
        set(&server);
        server.start(true).unwrap();
        assert_eq!(ask(server.address().unwrap(), verb), None, "{verb}");
        server.stop();
        assert_eq!(handled.load(Ordering::SeqCst), 0, "nothing is done for it");
    }
}

#[test]
fn a_malformed_request_comes_with_its_errors_and_an_unknown_verb_with_its_request() {
    let (server, _folder) = server();
    let (tell, told) = mpsc::channel();
    let tell_unknown = tell.clone();
    server.on_malformed_request(move |client, errors| {
        tell.send((client.address().ip(), errors.to_json())).unwrap();
    });
    server.on_unknown_verb(move |client| {
        let request = client.request().unwrap().to_json();
        tell_unknown.send((client.address().ip(), request)).unwrap();
    });
    server.start(true).unwrap();
    let address = server.address().unwrap();
    let check = |verb: &str, parameters: Value, message: &str, expected: Value| {
        let request = json!({ "verb": verb, "parameters": parameters });
        let response = ask_whole(address, &request, |_| {}).unwrap();
        assert_eq!(response.message, message);
        assert_eq!(told.try_recv(), Ok(([127, 0, 0, 1].into(), expected)));
    };
    let malformed = "Bad request (Malformed request)";
    let rule = "value does not match regex '^[A-Z]{1,}$'";
    check("stat", json!({}), malformed, json!({ "verb": [rule] }));
    let dict = json!({ "parameters": ["must be of dict type"] });
    check("STAT", json!(null), malformed, json!({ "parameters": ["null value not allowed"] }));
    check("STAT", json!([]), malformed, dict);
    let of_parameters = |errors: Value| json!({ "parameters": [errors] });
    let short = of_parameters(json!({ "ttl": ["must be of integer type"] }));
    check("CREATE", json!({ "ttl": "x" }), malformed, short);
    let both = json!({ "client_token": ["required field"], "container_uuid": ["required field"] });
    check("DESTROY", json!({}), malformed, of_parameters(both));
    let unknown = json!({ "verb": "NONE", "parameters": { "a": 1 } });
    check("NONE", json!({ "a": 1 }), "Bad request (Unhandled verb)", unknown);
}

#[test]
fn a_container_that_cannot_be_made_is_a_runtime_error() {
    let (server, folder) = server_of(|machines| machines.count_max = 2);
    let (tell, told) = mpsc::channel();
    server.on_runtime_error(move |error, client| {
        let verb = client.unwrap().request().unwrap().verb.clone();
        tell.send((error.clone(), verb)).unwrap();
    });
    server.start(true).unwrap();
    let containers = server.runtime_virtualization_interface().clone();
    let mine = move |client: &Client, _: &Request| {
        created(client, containers.create_container(client, Order::default()))
    };
    server.set_request_handler("MINE", mine).unwrap();
    for verb in ["CREATE", "MINE"] {
        let response = ask(server.address().unwrap(), verb).unwrap();
        assert_eq!(response.message, "Unavailable (The image cannot be used)");
        let (error, of_client) = told.try_recv().unwrap();
        assert_eq!((error.name.as_str(), error.class, of_client.as_str()), (verb, "Image", verb));
        let images = folder.path().join("none").display().to_string();
        assert!(error.trace.contains("image small") && error.trace.contains(&images), "{error:?}");
    }
    let statistics = server.runtime_statistics();
    assert_eq!(statistics.recorded_runtime_errors_amount, 2);
    assert_eq!(statistics.available_containers_amount, 2, "its place is free again");
}

#[test]
fn a_handler_may_do_what_it_has_replaced() {
    let (server, _folder) = server();
    assert!(server.request_handler("NONE").is_none());
    let stat = server.request_handler(REQUEST_VERB_STAT).unwrap();
    let more = move |client: &Client, request: &Request| {
        let mut response = stat.handle(client, request);
        response.data.insert("name".to_owned(), "mine".into());
        response
    };
    server.set_request_handler(REQUEST_VERB_STAT, more).unwrap();
    // Around one that is around another already.
    let named = server.request_handler(REQUEST_VERB_STAT).unwrap();
    let twice = move |client: &Client, request: &Request| named.handle(client, request);
    server.set_request_handler(REQUEST_VERB_STAT, twice).unwrap();
    let create = server.request_handler(REQUEST_VERB_CREATE).unwrap();
    let logged = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&logged);
    let usual = move |client: &Client, request: &Request| {
        let response = create.handle(client, request);
        log.lock().unwrap().push(response.message.clone());
        response
    };
    server.set_request_handler(REQUEST_VERB_CREATE, usual).unwrap();
    server.start(true).unwrap();
    let address = server.address().unwrap();
    let data = ask(address, "STAT").unwrap().data;
    assert_eq!((&data["available"], &data["name"]), (&json!(6), &json!("mine")));
    let message = ask(address, "CREATE").unwrap().message;
    assert_eq!(message, "Unavailable (The image cannot be used)");
    assert_eq!(*logged.lock().unwrap(), [message]);
    assert_eq!(server.runtime_statistics().recorded_runtime_errors_amount, 1, "told of once");
}

#[test]
fn a_panic_within_is_one_of_who_calls() {
    let (server, _folder) = server();
    server.set_request_handler("BOOM", |_, _| panic!("as the test wants")).unwrap();
    let boom = server.request_handler("BOOM").unwrap();
    server
        .set_request_handler("BOOM", move |client, request| boom.handle(client, request))
        .unwrap();
    server.start(true).unwrap();
    let response = ask(server.address().unwrap(), "BOOM").unwrap();
    assert_eq!(response.message, RESPONSE_MSG_INTERNAL_ERROR);
    assert_eq!(server.runtime_statistics().recorded_runtime_errors_amount, 1);
}

#[test]
fn containers_are_made_for_clients_whose_session_goes_on() {
    let (server, _folder) = server();
    let containers = server.runtime_virtualization_interface().clone();
    let (tell, told) = mpsc::channel();
    server.on_client_closed(move |client| tell.send(client.clone()).unwrap());
    assert_eq!(
        (containers.containers(), containers.container(MachineId::random())),
        (vec![], None)
    );
    server.start(true).unwrap();
    assert!(ask(server.address().unwrap(), "STAT").unwrap().success);
    let client = told.recv().unwrap();
    let made = containers.create_container(&client, Order::default());
    assert!(matches!(made, Err(MachineError::Ended(_))), "{made:?}");
    let (id, token) = (MachineId::random(), Secret::new("t".repeat(255)));
    let unknown =
        [containers.stop_container(id), containers.destroy_container(&client, id, &token)];
    assert!(unknown.iter().all(|it| matches!(it, Err(MachineError::NotFound))), "{unknown:?}");
    let answer = destroyed(&client, Err(MachineError::NotFound));
    assert_eq!((answer.success, answer.message.as_str()), (false, RESPONSE_MSG_BAD_AUTH));
    assert_eq!(server.runtime_statistics().recorded_runtime_errors_amount, 0);
    server.stop();
    for stopped in [
        containers.create_container(&client, Order::default()).map(|_| ()),
        containers.destroy_container(&client, id, &token),
        containers.stop_container(id),
    ] {
        assert!(matches!(stopped, Err(MachineError::Closing)), "{stopped:?}");
    }
}

/// Handlers at a time.
const TURNS: usize = 4;
/// More than the threads that there are for what blocks.
const CROWD: usize = 5 * TURNS;

#[test]
fn handlers_that_wait_never_hold_the_threads_that_others_need() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerInterface::with_turns(parameters(&folder, |_| {}), TURNS).unwrap();
    let (open_gate, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let wait = move |_: &Client, _: &Request| {
        // An error: the gate is open.
        let _ = gate.lock().unwrap().recv();
        Response::ok(Map::new())
    };
    server.set_request_handler("WAIT", wait).unwrap();
    server.on_request(|_| {});
    server.start(true).unwrap();
    let address = server.address().unwrap();
    let (tell, told) = mpsc::channel();
    let request = json!({ "verb": "WAIT", "parameters": {} });
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CROWD)
            .map(|_| {
                let (tell, request) = (tell.clone(), &request);
                scope.spawn(move || ask_whole(address, request, |_| tell.send(()).unwrap()))
            })
            .collect();
        for asked in 0..CROWD {
            assert!(told.recv_timeout(LONG).is_ok(), "only {asked} could say what they want");
        }
        assert!(ask(address, "STAT").unwrap().success);
        drop(open_gate);
        for asked in asking {
            assert!(asked.join().unwrap().unwrap().success);
        }
    });
}
