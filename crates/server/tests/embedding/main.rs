//! The examples of embedding as programs, asked by the protocol's own client.

#![expect(clippy::unwrap_used, reason = "a failed step fails its test")]

mod guests;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use wire::Secret;
use wire::container::{ClientSide, Generation, KeyPair, Progress, Response};

/// For a guest under software emulation with other tests beside it.
const LONG: Duration = Duration::from_secs(100);

/// An example that runs, and a folder for what it keeps.
struct Example {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Example {
    #[expect(clippy::disallowed_methods, reason = "a test starts the examples as their users do")]
    fn start(name: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let machines = home.path().join("gatehouse/machines");
        std::fs::create_dir_all(&machines).unwrap();
        std::os::unix::fs::symlink(images(), machines.join("images")).unwrap();
        let address = free_address();
        let mut child = Command::new(program(name))
            .arg(address.port().to_string())
            .env("XDG_STATE_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut example = Self { child, stdout, address, _home: home };
        example.read_until("started");
        example
    }

    /// Reads lines until `wanted`; all of them.
    fn read_until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let count = self.stdout.read_line(&mut line).unwrap();
            assert!(count > 0, "it ended before {wanted:?}, after {lines:?}");
            let line = line.trim_end().to_owned();
            let is_it = line == wanted;
            lines.push(line);
            if is_it {
                return lines;
            }
        }
    }

    fn ask(&self, verb: &str, parameters: Value) -> Response {
        let stream = TcpStream::connect(self.address).unwrap();
        ask(stream, &json!({ "verb": verb, "parameters": parameters })).unwrap()
    }

    /// Its last words, after SIGTERM.
    fn end(mut self) -> String {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example as it was built beside this test.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build -p server --examples`", path.display());
    path
}

/// Where the images are that `make test` builds.
fn images() -> PathBuf {
    let given = std::env::var_os("GATEHOUSE_TEST_IMAGES").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images");
    given.unwrap_or(built)
}

/// One that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn pem() -> Secret {
    Secret::new(include_str!("../../../../testdata/containers/private2048.pem"))
}

/// Asks; an error for a connection that ends without an answer.
fn ask(mut stream: TcpStream, request: &Value) -> Result<Response, String> {
    let keys = Arc::new(KeyPair::from_private_pem(&pem()).unwrap());
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut client = ClientSide::new(keys, Generation::Four, request, None);
    loop {
        match client.advance().map_err(|refusal| refusal.to_string())? {
            Progress::Response(response) => return Ok(response),
            Progress::Read => {
                stream.write_all(&client.take_output()).map_err(|error| error.to_string())?;
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes) {
                    Ok(0) => return Err("closed".to_owned()),
                    Ok(count) => client.feed(&bytes[..count]),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
}

#[test]
fn the_basic_server_lends_a_machine_and_says_so() {
    let mut example = Example::start("basic_server");
    let stat = example.ask("STAT", json!({}));
    assert_eq!((stat.message.as_str(), &stat.data["available"]), ("OK", &json!(6)));
    let lent = example.ask("CREATE", json!({ "memory": 128, "vcpus": 1 }));
    assert!(lent.success, "{}", lent.message);
    let uuid = lent.data["container_uuid"].as_str().unwrap();
    assert_eq!(lent.data["client_token"].as_str().unwrap().len(), 255);
    let port = u16::try_from(lent.data["container_listen_port"].as_u64().unwrap()).unwrap();
    let mut banner = [0; 8];
    let mut login = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    login.set_read_timeout(Some(LONG)).unwrap();
    login.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
    let token = lent.data["client_token"].clone();
    let given_back =
        example.ask("DESTROY", json!({ "container_uuid": uuid, "client_token": token }));
    assert_eq!(given_back.message, "OK");
    let lines = example.read_until(&format!("container {uuid} is gone"));
    let about_it: Vec<&String> = lines.iter().filter(|line| line.contains(uuid)).collect();
    let expected = ["runs", "says: Linux", "is gone"];
    assert_eq!(about_it, expected.map(|what| format!("container {uuid} {what}")).each_ref());
    let rest = example.end();
    assert!(rest.ends_with("stopped\n"), "{rest}");
}

#[test]
fn a_verb_of_ones_own_is_answered() {
    let example = Example::start("custom_verb");
    let greeted = example.ask("GREET", json!({ "name": "Ada" }));
    assert_eq!(greeted.data["greeting"], "Good day, Ada!");
    assert_eq!(example.ask("GREET", json!({})).message, "Bad request (name is missing)");
    assert_eq!(example.ask("OTHER", json!({})).message, "Bad request (Unhandled verb)");
    assert!(example.ask("STAT", json!({})).success);
    example.end();
}

#[test]
fn an_address_that_is_not_allowed_is_sent_nothing() {
    let mut example = Example::start("ip_filtering");
    assert!(example.ask("STAT", json!({})).success);
    let stranger = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = stranger.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(example.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut sent = Vec::new();
    // A reset is as good as an end: nothing came before it.
    let _ = (&stream).read_to_end(&mut sent);
    assert_eq!(sent, b"");
    example.read_until("refused: 127.0.0.2");
    example.end();
}

#[test]
fn a_create_of_ones_own_lends_a_container_and_the_usual_destroy_takes_it_back() {
    let mut example = Example::start("replace_create");
    // What the request says does not matter here.
    let lent = example.ask("CREATE", json!({ "memory": 1024 }));
    assert!(lent.success, "{}", lent.message);
    let uuid = lent.data["container_uuid"].as_str().unwrap();
    example.read_until(&format!("127.0.0.1 has {uuid}"));
    let stat = example.ask("STAT", json!({})).data;
    assert_eq!((&stat["running"], &stat["available"]), (&json!(1), &json!(5)));
    let second = example.ask("CREATE", json!({}));
    let most = "The maximum allowed amount of your containers has been reached";
    assert_eq!(second.message, format!("Unavailable ({most})"));
    example.read_until("127.0.0.1 has none: 127.0.0.1 has 1 machines, which is the most allowed");
    let destroy = |token: &Value| {
        example.ask("DESTROY", json!({ "container_uuid": uuid, "client_token": token })).message
    };
    assert_eq!(destroy(&"t".repeat(255).into()), "Bad authentication");
    assert_eq!(destroy(&lent.data["client_token"]), "OK");
    example.read_until("127.0.0.1 gives back: Bad authentication");
    example.read_until("127.0.0.1 gives back: OK");
    assert_eq!(example.ask("STAT", json!({})).data["running"], 0);
    example.end();
}

#[test]
fn a_capacity_of_ones_own_is_kept_to() {
    let mut example = Example::start("custom_capacity");
    example.read_until("2 containers fit");
    assert_eq!(example.ask("STAT", json!({})).data["available"], 2);
    let too_large = example.ask("CREATE", json!({ "memory": 1024 }));
    assert!(too_large.message.starts_with("Bad request"), "{}", too_large.message);
    example.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(example.child.wait().unwrap().success());
}
