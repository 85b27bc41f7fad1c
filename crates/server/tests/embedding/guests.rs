//! A server inside this test, and guests that are made, ended and undone by its handlers.

use std::sync::mpsc;
use std::time::Instant;

use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use server::containers::{
    Accelerator, Bounds, Client, Container, DatabaseInterface, MachineError, MachineId, OnShutdown,
    Order, Parameters, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY, Response, RsaWrapper,
    RuntimeError, ServerInterface, VirtualizationInterface, created, destroyed,
};

use super::*;

/// A server whose snapshot is made once, by the first container.
struct Embedded {
    server: ServerInterface,
    folder: tempfile::TempDir,
    _ends: Ends,
}

/// Ends the guests of a folder when a test fails that wants them kept.
struct Ends(String);

impl Drop for Ends {
    fn drop(&mut self) {
        kill(&self.0);
    }
}

impl Embedded {
    fn start(on_shutdown: OnShutdown) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut virtualization = VirtualizationInterface::new().unwrap();
        virtualization.machines.accelerator = Accelerator::Emulation;
        virtualization.machines.images = images();
        virtualization.machines.memory_mb = 128;
        virtualization.machines.vcpus = 1;
        virtualization.machines.on_shutdown = on_shutdown;
        let server = ServerInterface::new(Parameters {
            bind_address: "127.0.0.1".to_owned(),
            listen_port: 0,
            runtime_virtualization_interface: Some(virtualization),
            runtime_database_interface: Some(DatabaseInterface::at(folder.path())),
            runtime_rsa_wrapper: Some(RsaWrapper::from_private_pem(&pem()).unwrap()),
            ..Parameters::default()
        });
        let server = server.unwrap();
        server.start(true).unwrap();
        let ends = Ends(folder.path().display().to_string());
        Self { server, folder, _ends: ends }
    }

    fn ask(&self, verb: &str, parameters: Value) -> Result<Response, String> {
        let stream = TcpStream::connect(self.server.address().unwrap()).unwrap();
        ask(stream, &json!({ "verb": verb, "parameters": parameters }))
    }

    fn create(&self) -> Result<Response, String> {
        self.ask("CREATE", json!({}))
    }

    fn give_back(&self, lent: &Response) -> Result<String, String> {
        let [id, token] = ["container_uuid", "client_token"].map(|name| lent.data[name].clone());
        let parameters = json!({ "container_uuid": id, "client_token": token });
        self.ask("DESTROY", parameters).map(|response| response.message)
    }

    fn containers(&self) -> Vec<Container> {
        self.server.runtime_virtualization_interface().containers()
    }

    fn errors(&self) -> u64 {
        self.server.runtime_statistics().recorded_runtime_errors_amount
    }

    /// Waits until every container is gone, and its place free again.
    #[track_caller]
    fn check_undone(&self) {
        let since = Instant::now();
        while !self.containers().is_empty() {
            assert!(since.elapsed() < LONG, "left behind: {:?}", self.containers());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.server.runtime_statistics().available_containers_amount, 6);
        let running = std::fs::read_dir(self.folder.path().join("running")).unwrap();
        assert_eq!(running.count(), 0, "folders");
    }

    /// Nobody is told of containers any more.
    fn hush(&self) {
        self.server.on_created_container(|_, _| {});
        self.server.on_created_endpoint_shell(|_, _, _| {});
        self.server.on_destroyed_container(|_, _| {});
    }
}

fn uuid(lent: &Response) -> MachineId {
    lent.data["container_uuid"].as_str().unwrap().parse().unwrap()
}

fn closed() -> Result<Response, String> {
    Err("closed".to_owned())
}

/// Kills every QEMU whose command line names this folder; how many there were.
fn kill(folder: &str) -> usize {
    let mut count = 0;
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("qemu-system")
            && line.contains(folder)
            && let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty())
        {
            // It may have ended by itself.
            count += usize::from(pidfd_send_signal(&process, Signal::KILL).is_ok());
        }
    }
    count
}

#[test]
fn who_closes_the_shell_or_the_client_leaves_no_container_behind() {
    let it = Embedded::start(OnShutdown::Stop);
    let (tell, told) = mpsc::channel();
    it.server.on_created_endpoint_shell(move |shell, container, _| {
        let said = shell.run("id -un", Bounds::within(LONG)).unwrap();
        shell.close();
        assert!(shell.is_closed() && shell.run("id", Bounds::within(LONG)).is_err());
        tell.send((container.uuid, said.stdout)).unwrap();
    });
    assert_eq!(it.create(), closed());
    let (shown, user) = told.recv().unwrap();
    assert_eq!(user, b"endpoint\n");
    it.check_undone();
    it.server.on_created_container(move |client, container| {
        assert_ne!(container.uuid, shown);
        client.close();
    });
    assert_eq!(it.create(), closed());
    assert!(told.try_recv().is_err(), "nothing goes on with it");
    it.check_undone();
    it.hush();
    it.server.on_created_endpoint_shell(|_, _, client| client.close());
    assert_eq!(it.create(), closed());
    it.check_undone();
    it.hush();
    let lent = it.create().unwrap();
    let token = Secret::new(lent.data["client_token"].as_str().unwrap());
    let database = it.server.runtime_database_interface();
    assert_eq!(database.entries().len(), 1, "those before are undone");
    assert_eq!(database.entry(uuid(&lent), &token).as_ref(), database.entries().first());
    assert_eq!(database.entry(uuid(&lent), &Secret::new("0".repeat(255))), None);
    assert_eq!(it.server.runtime_statistics().available_containers_amount, 5);
    // What is destroyed is so, whoever does not hear of it.
    it.server.on_destroyed_container(|client, _| client.close());
    assert_eq!(it.give_back(&lent), Err("closed".to_owned()));
    it.check_undone();
    assert_eq!(it.errors(), 0, "what a handler ends has not failed");
    check_qemu_dies(&it);
    it.create().unwrap();
    let Embedded { server, folder, _ends } = it;
    drop(server);
    assert_eq!(std::fs::read_dir(folder.path().join("running")).unwrap().count(), 0);
}

/// QEMU ends in the midst of CREATE: the client and the program learn of it.
fn check_qemu_dies(it: &Embedded) {
    it.hush();
    let errors = it.errors();
    let (tell, told) = mpsc::channel::<(RuntimeError, Client)>();
    it.server.on_runtime_error(move |error, client| {
        tell.send((error.clone(), client.unwrap().clone())).unwrap();
    });
    it.server.on_created_container(|_, container| assert_eq!(kill(&container.uuid.to_string()), 1));
    assert_eq!(it.create().unwrap().message, "Internal error");
    let (error, client) = told.try_recv().unwrap();
    assert_eq!(error.name, "CREATE");
    assert!(["Ended", "SetUp", "Hypervisor"].contains(&error.class), "{error:?}");
    assert!(!error.trace.is_empty());
    assert_eq!(client.request().unwrap().verb, "CREATE");
    assert!(told.try_recv().is_err());
    assert_eq!(it.errors(), errors + 1);
    it.check_undone();
    it.hush();
}

#[test]
fn a_handler_makes_containers_that_are_as_those_of_the_server() {
    let it = Embedded::start(OnShutdown::Stop);
    let containers = it.server.runtime_virtualization_interface().clone();
    let labels = [("for".to_owned(), "Ada".to_owned())].into();
    let order = Order { labels, ..Order::default() };
    let making = containers.clone();
    let create = move |client: &Client, _: &_| {
        created(client, making.create_container(client, order.clone()))
    };
    it.server.set_request_handler(REQUEST_VERB_CREATE, create).unwrap();
    let (tell, told) = mpsc::channel();
    let (tell_shell, tell_end) = (tell.clone(), tell.clone());
    it.server.on_created_container(move |_, it| tell.send((4, it.clone())).unwrap());
    it.server.on_created_endpoint_shell(move |_, it, _| tell_shell.send((5, it.clone())).unwrap());
    it.server.on_destroyed_container(move |_, it| tell_end.send((6, it.clone())).unwrap());
    let lent = it.create().unwrap();
    assert!(lent.success, "{}", lent.message);
    assert_eq!(lent.data["container_username"].as_str().unwrap().len(), "user_12345".len());
    let shown = containers.container(uuid(&lent)).unwrap();
    assert_eq!(shown.summary.as_ref().unwrap().labels["for"], "Ada");
    assert_eq!(containers.containers(), std::slice::from_ref(&shown));
    assert_eq!(it.server.runtime_statistics().available_containers_amount, 5);
    // The server's own DESTROY knows its credentials.
    assert_eq!(it.give_back(&lent), Ok("OK".to_owned()));
    let told: Vec<(u8, Container)> = told.try_iter().collect();
    assert_eq!(told.iter().map(|(event, _)| *event).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(told.iter().all(|(_, it)| it.uuid == shown.uuid));
    assert_eq!(told[2].1, shown, "as it was");
    it.check_undone();
    it.hush();
    check_refusing(&it, &containers);
    check_leaving(&it, &containers);
    check_own_destroy(&it, &containers);
}

/// Made, and then not given: undone.
fn check_refusing(it: &Embedded, containers: &VirtualizationInterface) {
    for is_panic in [false, true] {
        let making = containers.clone();
        let refuse = move |client: &Client, _: &_| {
            let made = making.create_container(client, Order::default());
            assert!(made.is_ok() && !is_panic, "as the test wants");
            created(client, Err(MachineError::Closing))
        };
        it.server.set_request_handler(REQUEST_VERB_CREATE, refuse).unwrap();
        assert!(!it.create().unwrap().success);
        it.check_undone();
    }
}

/// A client that leaves meanwhile: undone at once, and the handler learns of it.
fn check_leaving(it: &Embedded, containers: &VirtualizationInterface) {
    let (tell, told) = mpsc::channel();
    let making = containers.clone();
    let create = move |client: &Client, _: &_| {
        let made = making.create_container(client, Order::default());
        tell.send(made.as_ref().map(|_| ()).map_err(ToString::to_string)).unwrap();
        created(client, made)
    };
    it.server.set_request_handler(REQUEST_VERB_CREATE, create).unwrap();
    let client = TcpStream::connect(it.server.address().unwrap()).unwrap();
    let leaving = client.try_clone().unwrap();
    it.server.on_created_container(move |client, _| {
        leaving.shutdown(std::net::Shutdown::Both).unwrap();
        let since = Instant::now();
        while !client.is_closed() && since.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(client.is_closed());
    });
    assert!(ask(client, &json!({ "verb": "CREATE", "parameters": {} })).is_err());
    let made = told.recv_timeout(LONG).unwrap();
    assert!(made.unwrap_err().contains("session has ended"));
    it.check_undone();
    it.hush();
}

/// DESTROY by a handler: only with the right token; and the program's own way, without one.
fn check_own_destroy(it: &Embedded, containers: &VirtualizationInterface) {
    let making = containers.clone();
    let create = move |client: &Client, _: &_| {
        created(client, making.create_container(client, Order::default()))
    };
    it.server.set_request_handler(REQUEST_VERB_CREATE, create).unwrap();
    let destroying = containers.clone();
    let destroy = move |client: &Client, request: &server::containers::Request| {
        let wanted = request.destroy().unwrap();
        let uuid = wanted.uuid.parse().unwrap();
        destroyed(client, destroying.destroy_container(client, uuid, &wanted.token))
    };
    it.server.set_request_handler(REQUEST_VERB_DESTROY, destroy).unwrap();
    let (tell, told) = mpsc::channel();
    it.server.on_destroyed_container(move |_, container| tell.send(container.uuid).unwrap());
    let lent = it.create().unwrap();
    let mut stolen = lent.clone();
    stolen.data.insert("client_token".to_owned(), "t".repeat(255).into());
    assert_eq!(it.give_back(&stolen), Ok("Bad authentication".to_owned()));
    assert_eq!(it.give_back(&lent), Ok("OK".to_owned()));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [uuid(&lent)]);
    it.check_undone();
    let lent = it.create().unwrap();
    containers.stop_container(uuid(&lent)).unwrap();
    assert_eq!(it.give_back(&lent), Ok("Bad authentication".to_owned()));
    it.check_undone();
}

#[test]
fn containers_that_are_to_be_kept_are_there_again_after_a_restart() {
    let it = Embedded::start(OnShutdown::Keep);
    let lent = it.create().unwrap();
    it.server.stop();
    assert_eq!(it.containers(), []);
    assert_eq!(it.server.runtime_database_interface().entries(), []);
    it.server.restart(true).unwrap();
    let kept: Vec<_> = it.containers().iter().map(|container| container.uuid).collect();
    assert_eq!(kept, [uuid(&lent)]);
    assert_eq!(it.server.runtime_statistics().available_containers_amount, 5);
    assert_eq!(it.give_back(&lent), Ok("OK".to_owned()));
    it.check_undone();
}
