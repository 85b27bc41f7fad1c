//! Restarting in place: what an operator and the service manager see of it.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::{DEADLINE, Server, Setup, Signal, wait_until};

fn value() -> Setup {
    Setup::new().handler("Value", "return {'p': self.args.get('p')}").parameters("value", "p=first")
}

fn wait_for_value(server: &Server, wanted: &str) {
    wait_until(wanted, || (server.get_json("/value")["p"] == wanted).then_some(()));
}

#[test]
fn sigusr1_reloads_as_sighup_does() {
    let mut server = value().start();
    for (signal, wanted) in [(Signal::USR1, "second"), (Signal::HUP, "third")] {
        server.configure(|setup| setup.parameters("value", &format!("p={wanted}")));
        server.signal(signal);
        wait_for_value(&server, wanted);
    }
    assert_eq!(server.stop().code, Some(0));
}

/// The end comes in time although a reload is held up by a plugin that does not become ready.
fn check_end_during_reload(signal: Signal) {
    let mut server = value().start();
    let entered = server.path("entered");
    server.write(
        "plugins/value.py",
        format!(
            "from plugincore.baseplugin import BasePlugin\nimport asyncio\nclass Value(BasePlugin):\n    async def initialize(self, **kwargs):\n        open({:?}, 'w').close()\n        await asyncio.sleep(60)\n    def request_handler(self, **data):\n        return {{}}\n",
            entered.display().to_string()
        ),
    );
    server.signal(Signal::HUP);
    wait_until("the reload begins", || entered.exists().then_some(()));
    assert_eq!(server.get_json("/value")["p"], "first", "it serves while it reloads");
    server.signal(signal);
    let in_time = server.process.ends_within(Duration::from_secs(10));
    assert!(in_time, "{signal:?}: {}", server.log().so_far());
    assert_eq!(server.process.wait().code, Some(0), "{signal:?}");
}

#[test]
fn sigterm_during_a_reload_ends_it_in_time() {
    check_end_during_reload(Signal::TERM);
}

#[test]
fn sigint_during_a_reload_ends_it_in_time() {
    check_end_during_reload(Signal::INT);
}

/// The next thing that the service manager is told.
fn told(socket: &UnixDatagram) -> &'static str {
    let mut buffer = [0; 4096];
    loop {
        let count = socket.recv(&mut buffer).expect("a message to the service manager");
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let known = ["READY=1", "RELOADING=1", "STOPPING=1"];
        if let Some(found) = known.into_iter().find(|known| text.lines().any(|line| line == *known))
        {
            return found;
        }
    }
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_end() {
    let mut setup = value();
    let path = setup.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    setup = setup.environment("NOTIFY_SOCKET", &path.display().to_string());
    let mut server = setup.start();
    assert_eq!(told(&socket), "READY=1");
    server.configure(|setup| setup.parameters("value", "p=second"));
    server.signal(Signal::HUP);
    assert_eq!(told(&socket), "RELOADING=1");
    assert_eq!(told(&socket), "READY=1");
    assert_eq!(server.get_json("/value")["p"], "second", "ready is said when it is in force");
    server.configure(|setup| setup.set("network", "unheard_of", "1"));
    server.signal(Signal::HUP);
    assert_eq!(told(&socket), "RELOADING=1");
    assert_eq!(told(&socket), "READY=1", "a reload that fails ends as well");
    server.signal(Signal::TERM);
    assert_eq!(told(&socket), "STOPPING=1");
    assert_eq!(server.process.wait().code, Some(0));
}

/// Whether a connection that was served once is closed within a time far below the old limit.
fn is_closed_soon(server: &Server) -> bool {
    let mut connection = server.connect();
    connection.write("GET /value HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(connection.read_reply().status, 200);
    let stream = connection.stream();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        other => panic!("neither closed nor silent: {other:?}"),
    }
}

#[test]
fn a_changed_idle_limit_holds_for_connections_opened_afterwards() {
    let mut server = value()
        .set("limits", "header_timeout_secs", "60")
        .set("limits", "idle_timeout_secs", "60")
        .start();
    assert_eq!(server.get("/value").status, 200);
    server.configure(|setup| {
        setup.set("limits", "idle_timeout_secs", "1").parameters("value", "p=second")
    });
    server.signal(Signal::HUP);
    wait_for_value(&server, "second");
    // Plugins and sockets are not changed in the same moment.
    wait_until("an idle connection is closed", || is_closed_soon(&server).then_some(()));
}
