//! Every name of the documented library, held against ours and against the table in `docs/embedding.md`.

use super::*;

const PAGE: &str = include_str!("../../../../../docs/embedding.md");

/// Constants, as the documents write their values.
const CONSTANTS: [(&str, &str); 25] = [
    ("DEFAULT_SERVER_BIND_ADDRESS", r#""""#),
    ("DEFAULT_SERVER_LISTEN_PORT", "6150"),
    ("DEFAULT_CLIENT_TIMEOUT", "10"),
    ("DEFAULT_ASYCHRONOUS", "False"),
    ("REQUEST_VERB_CREATE", r#""CREATE""#),
    ("REQUEST_VERB_DESTROY", r#""DESTROY""#),
    ("REQUEST_VERB_STAT", r#""STAT""#),
    ("RESPONSE_MSG_OK", r#""OK""#),
    ("RESPONSE_MSG_BAD_AUTH", r#""Bad authentication""#),
    ("RESPONSE_MSG_BAD_REQ", r#""Bad request""#),
    ("RESPONSE_MSG_REFUSED_REQ", r#""Refused request""#),
    ("RESPONSE_MSG_UNAVAILABLE", r#""Unavailable""#),
    ("RESPONSE_MSG_INTERNAL_ERROR", r#""Internal error""#),
    ("EVENT_CLIENT", "1"),
    ("EVENT_CLIENT_CLOSED", "2"),
    ("EVENT_CONNECTION", "3"),
    ("EVENT_CREATED_CONTAINER", "4"),
    ("EVENT_CREATED_ENDPOINT_SHELL", "5"),
    ("EVENT_DESTROYED_CONTAINER", "6"),
    ("EVENT_MALFORMED_REQUEST", "7"),
    ("EVENT_REQUEST", "8"),
    ("EVENT_RUNTIME_ERROR", "9"),
    ("EVENT_STARTED", "10"),
    ("EVENT_STOPPED", "11"),
    ("EVENT_UNKNOWN_VERB", "12"),
];

/// Parameters of the class, and what their defaults are.
const PARAMETERS: [(&str, &str); 7] = [
    ("container_iso_path", "image `small`"),
    ("bind_address", "DEFAULT_SERVER_BIND_ADDRESS"),
    ("listen_port", "DEFAULT_SERVER_LISTEN_PORT"),
    ("client_timeout", "DEFAULT_CLIENT_TIMEOUT"),
    ("runtime_virtualization_interface", "defaults of `[containers]`"),
    ("runtime_database_interface", "folder of its own"),
    ("runtime_rsa_wrapper", "new keys"),
];

/// What is handed in, out and to callbacks.
const CLASSES: [&str; 7] = [
    "VirtualizationInterface",
    "DatabaseInterface",
    "RSAWrapper",
    "ClientInstance",
    "raw client socket",
    "ContainerInstance",
    "EndpointShellInstance",
];

/// Methods with their parameters, and what they must be said to have here.
const METHODS: [(&str, &[&str]); 10] = [
    ("getRuntimeDatabaseInterface()", &["runtime_database_interface()"]),
    ("getRuntimeVirtualizationInterface()", &["runtime_virtualization_interface()"]),
    ("getRuntimeRSAWrapper()", &["runtime_rsa_wrapper()"]),
    (
        "getRuntimeStatistics()",
        &[
            "runtime_statistics()",
            "is_running",
            "recorded_runtime_errors_amount",
            "uptime",
            "available_containers_amount",
        ],
    ),
    ("setRequestHandler(verb, routine)", &["set_request_handler(verb, "]),
    ("setEventHandler(event, routine)", &["set_event_handler(event, "]),
    ("startServer(asynchronous)", &["start(asynchronous)"]),
    ("stopServer()", &["stop()"]),
    ("restartServer(asynchronous)", &["restart(asynchronous)"]),
    ("__del__", &["dropping it stops it"]),
];

/// Callbacks and what they are given.
const CALLBACKS: [(&str, &[&str]); 12] = [
    ("on_client", &["client_instance"]),
    ("on_client_closed", &["client_instance"]),
    ("on_connection", &["client_socket"]),
    ("on_created_container", &["client_instance", "container_instance"]),
    (
        "on_created_endpoint_shell",
        &["endpoint_shell_instance", "container_instance", "client_instance"],
    ),
    ("on_destroyed_container", &["client_instance", "container_instance"]),
    ("on_malformed_request", &["client_instance", "cerberus_error_dict"]),
    ("on_request", &["client_instance"]),
    ("on_runtime_error", &["name", "ex_class", "traceback", "client_instance"]),
    ("on_started", &[]),
    ("on_stopped", &[]),
    ("on_unknown_verb", &["client_instance"]),
];

/// The rows of the tables below the heading that names them, without those of their heads: cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(heading).unwrap() + heading.len();
    let text = PAGE[start..].split("\n##").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|'));
    // `\|` is a bar inside a cell.
    let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches(&['|', ' '][..])));
    let rows = cells.map(Iterator::collect);
    rows.filter(|row: &Vec<&str>| !row[0].starts_with("documented") && !row[0].starts_with("---"))
        .collect()
}

/// The row of a documented name, which has one only.
#[track_caller]
fn row(rows: &[Vec<&'static str>], name: &str) -> Vec<&'static str> {
    let named = |row: &&Vec<&str>| {
        let cell = row[0].trim_matches('`');
        cell == name || cell.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "))
    };
    let found: Vec<_> = rows.iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{name} in docs/embedding.md");
    found[0].clone()
}

#[test]
fn every_documented_constant_is_on_the_page_with_its_value() {
    let rows = rows("### Constants");
    assert_eq!(rows.len(), CONSTANTS.len(), "no name that is not documented");
    for (name, value) in CONSTANTS {
        let row = row(&rows, name);
        assert!(row[1].starts_with("the same"), "{name}: {}", row[1]);
        let value = value.replace("False", "false");
        assert!(row[2].starts_with(&format!("`{value}`")), "{name}: {}", row[2]);
    }
}

#[test]
fn every_documented_constant_has_its_value() {
    let texts = [
        DEFAULT_SERVER_BIND_ADDRESS,
        REQUEST_VERB_CREATE,
        REQUEST_VERB_DESTROY,
        REQUEST_VERB_STAT,
        RESPONSE_MSG_OK,
        RESPONSE_MSG_BAD_AUTH,
        RESPONSE_MSG_BAD_REQ,
        RESPONSE_MSG_REFUSED_REQ,
        RESPONSE_MSG_UNAVAILABLE,
        RESPONSE_MSG_INTERNAL_ERROR,
    ];
    let events = [
        EVENT_CLIENT,
        EVENT_CLIENT_CLOSED,
        EVENT_CONNECTION,
        EVENT_CREATED_CONTAINER,
        EVENT_CREATED_ENDPOINT_SHELL,
        EVENT_DESTROYED_CONTAINER,
        EVENT_MALFORMED_REQUEST,
        EVENT_REQUEST,
        EVENT_RUNTIME_ERROR,
        EVENT_STARTED,
        EVENT_STOPPED,
        EVENT_UNKNOWN_VERB,
    ];
    let mut ours = vec![format!("{:?}", texts[0])];
    ours.push(DEFAULT_SERVER_LISTEN_PORT.to_string());
    ours.push(DEFAULT_CLIENT_TIMEOUT.to_string());
    ours.push(if DEFAULT_ASYCHRONOUS { "True" } else { "False" }.to_owned());
    ours.extend(texts[1..].iter().map(|text| format!("{text:?}")));
    ours.extend(events.iter().map(u8::to_string));
    assert_eq!(ours, CONSTANTS.map(|(_, value)| value));
}

#[test]
fn every_documented_parameter_is_on_the_page_and_has_its_default() {
    let rows = rows("### `ServerInterface` and what it is made of");
    assert_eq!(rows.len(), PARAMETERS.len() + CLASSES.len(), "none that is not documented");
    for (name, default) in PARAMETERS {
        let row = row(&rows, name);
        let is_same = row[1].starts_with("the same") || row[1].starts_with(&format!("`{name}: "));
        assert!(is_same && row[2].contains(default), "{name}: {row:?}");
    }
    for class in CLASSES {
        assert_eq!(row(&rows, class).len(), 3);
    }
    // No field more, none less.
    let Parameters {
        container_iso_path: None,
        bind_address,
        listen_port: DEFAULT_SERVER_LISTEN_PORT,
        client_timeout,
        runtime_virtualization_interface: None,
        runtime_database_interface: None,
        runtime_rsa_wrapper: None,
    } = Parameters::default()
    else {
        panic!("not the documented defaults: {:?}", Parameters::default());
    };
    assert_eq!(bind_address, DEFAULT_SERVER_BIND_ADDRESS);
    assert_eq!(client_timeout, Some(Duration::from_secs(DEFAULT_CLIENT_TIMEOUT)));
}

#[test]
fn every_documented_method_is_on_the_page() {
    let rows = rows("### Methods");
    // What is ours alone has nothing in the first cell.
    let documented = rows.iter().filter(|row| !row[0].is_empty()).count();
    assert_eq!(documented, METHODS.len(), "none that is not documented");
    for (name, ours) in METHODS {
        let row = row(&rows, name);
        assert!(ours.iter().all(|ours| row[1].contains(ours)), "{name}: {}", row[1]);
    }
}

#[test]
fn every_documented_callback_is_on_the_page_with_its_arguments() {
    let rows = rows("### Events and their arguments");
    assert_eq!(rows.len(), CALLBACKS.len(), "none that is not documented");
    for ((name, arguments), (constant, number)) in CALLBACKS.iter().zip(&CONSTANTS[13..]) {
        let affiliated = format!("EVENT_{}", name.trim_start_matches("on_").to_uppercase());
        assert_eq!(affiliated, *constant, "number {number}");
        let row = row(&rows, name);
        let has = |argument: &&str| row[2].contains(&format!("`{argument}`"));
        assert!(arguments.iter().all(has), "{name}: {}", row[2]);
        assert_eq!(arguments.is_empty(), row[2] == "none", "{name}");
    }
}

/// A server whose handler of one event was set by the method of that event.
fn told_by_method(event: u8) -> Arc<ServerInterface> {
    let (server, _folder) = server();
    match event {
        EVENT_CLIENT => server.on_client(|_| {}),
        EVENT_CLIENT_CLOSED => server.on_client_closed(|_| {}),
        EVENT_CONNECTION => server.on_connection(|_| {}),
        EVENT_CREATED_CONTAINER => server.on_created_container(|_, _| {}),
        EVENT_CREATED_ENDPOINT_SHELL => server.on_created_endpoint_shell(|_, _, _| {}),
        EVENT_DESTROYED_CONTAINER => server.on_destroyed_container(|_, _| {}),
        EVENT_MALFORMED_REQUEST => server.on_malformed_request(|_, _| {}),
        EVENT_REQUEST => server.on_request(|_| {}),
        EVENT_RUNTIME_ERROR => server.on_runtime_error(|_, _| {}),
        EVENT_STARTED => server.on_started(|| {}),
        EVENT_STOPPED => server.on_stopped(|| {}),
        EVENT_UNKNOWN_VERB => server.on_unknown_verb(|_| {}),
        other => panic!("{other} is no event"),
    }
    server
}

#[test]
fn the_method_of_an_event_and_its_number_set_the_same_handler() {
    for event in EVENT_CLIENT..=EVENT_UNKNOWN_VERB {
        let server = told_by_method(event);
        let shared = &server.plan.shared;
        let set: Vec<u8> = (1..=12).filter(|event| shared.get(*event).is_some()).collect();
        assert_eq!(set, [event]);
        let told = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&told);
        server.set_event_handler(event, move |_| note.store(true, Ordering::SeqCst)).unwrap();
        shared.get(event).unwrap()(&Occasion { event, ..Occasion::default() });
        assert!(told.load(Ordering::SeqCst), "{event}: the later one takes the place");
    }
}
