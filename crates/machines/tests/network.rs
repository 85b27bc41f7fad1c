//! What a real guest reaches, seen from inside it.
//!
//! The test runs itself again in a network namespace of its own, which plays this host, and there once more in
//! another, which plays the world outside: so the addresses may be public ones, and nothing of this machine is touched.
//! It is skipped, and says so, where namespaces cannot be had; without QEMU or the small image it fails.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails its test")]
#![expect(clippy::print_stdout, reason = "a test's parts talk by their output")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machines::guest::shell::{Bounds, Shell};
use machines::guest::ssh::{self, Login, Proof};
use machines::hypervisor::{Ending, GuestStream, Later, Vm};
use machines::network::{Network, NetworkPolicy};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::Secret;

/// Says which part a process plays; without it, it is the test itself.
const PART: &str = "GATEHOUSE_NETWORK_TEST_PART";
const TEST: &str = "a_guest_reaches_what_it_may_and_nothing_else";
/// A port of this host on every address, which no guest may reach.
const HOST_PORT: u16 = 8080;

#[test]
fn a_guest_reaches_what_it_may_and_nothing_else() {
    match std::env::var(PART).as_deref() {
        Ok("host") => host(),
        Ok("outside") => outside(),
        _ => match in_namespace("host").stdin(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(status) if status.code() == Some(1) => {
                eprintln!("SKIPPED: no network namespace can be had");
            }
            other => panic!("the part in the namespace: {other:?}"),
        },
    }
}

/// This test again, in a network namespace of its own, playing `part`.
fn in_namespace(part: &str) -> Command {
    let mut command = command("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--net").arg("--kill-child").arg("--fork");
    command.arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", TEST, "--nocapture"]);
    command.env(PART, part);
    command
}

#[expect(clippy::disallowed_methods, reason = "the test owns its processes")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn ip(line: &str) {
    let status = command("ip").args(line.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {line}");
}

/// Kills its process when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers every request at `address`, and counts them.
fn serve(address: &str, word: &'static str) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = || -> io::Result<()> {
                let mut stream = stream?;
                let _ = stream.read(&mut [0; 1024])?;
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len())
            };
            // A peer that went away is not waited for.
            let _ = answer();
        }
    });
    count
}

/// The world: a host with a public address, a private and the metadata's.
fn outside() {
    ip("link set lo up");
    println!("waiting");
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    for address in ["11.22.33.2/24", "192.168.77.2/24", "169.254.169.254/16"] {
        ip(&format!("addr add {address} dev far"));
    }
    ip("link set far up");
    let _ = serve("0.0.0.0:80", "outside");
    println!("ready");
    // Until the test is over.
    let _ = io::stdin().read_line(&mut line);
}

/// This host.
fn host() {
    ip("link set lo up");
    let mut world = in_namespace("outside");
    let mut world = Owned(world.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(world.0.stdout.take().unwrap()).lines();
    let mut wait_for = |word: &str| assert!(lines.any(|line| line.unwrap() == word), "{word}");
    wait_for("waiting");
    // `unshare --fork`: the namespace is its child's.
    let pid = world.0.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    ip(&format!("link add near type veth peer name far netns {}", children.trim()));
    for address in ["11.22.33.1/24", "192.168.77.1/24", "169.254.1.1/16"] {
        ip(&format!("addr add {address} dev near"));
    }
    ip("link set near up");
    writeln!(world.0.stdin.as_mut().unwrap()).unwrap();
    wait_for("ready");
    let reached = serve(&format!("0.0.0.0:{HOST_PORT}"), "host");

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(guest());
    assert_eq!(reached.load(Ordering::SeqCst), 0, "the guest has reached this host");
}

async fn guest() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("net.sock");
    let _qemu = boot(&socket);
    let world = ["11.22.33.2:80"];
    let private = ["192.168.77.2:80", "169.254.169.254:80"];
    let own: Vec<_> = ["10.0.2.2", "10.0.2.3", "11.22.33.1", "192.168.77.1", "169.254.1.1"]
        .map(|address| format!("{address}:{HOST_PORT}"))
        .into();
    let own: Vec<_> = own.iter().map(String::as_str).collect();

    let open = NetworkPolicy { internet: true, ..NetworkPolicy::default() };
    check(&socket, open, &world, &[&private[..], &own].concat()).await;
    // A server that was started again finds the guest by the same socket.
    check(&socket, NetworkPolicy::default(), &[], &[&world[..], &private, &own].concat()).await;
    let named = vec!["192.168.77.0/24".parse().unwrap()];
    let named = NetworkPolicy { allow: named, ..NetworkPolicy::default() };
    check(&socket, named, &private[..1], &[&world[..], &private[1..], &own].concat()).await;
    let all = NetworkPolicy {
        internet: true,
        allow: vec!["0.0.0.0/0".parse().unwrap()],
        ..NetworkPolicy::default()
    };
    check(&socket, all, &[&world[..], &private].concat(), &own).await;
}

/// Asks for each address from inside the guest.
async fn check(socket: &Path, policy: NetworkPolicy, reached: &[&str], refused: &[&str]) {
    let said = format!("{policy:?}");
    let vm = Attached::new(socket, policy).await;
    let login = Login {
        user: "endpoint".into(),
        proof: Proof::Password(Secret::new("endpoint".to_owned())),
        port: 22,
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let shell = ssh::open(&vm, &login, None, deadline).await.unwrap();
    for address in reached {
        let answer = fetch(&shell, address).await;
        assert_eq!(answer.as_deref(), Ok("outside"), "{address} with {said}");
    }
    for address in refused {
        let begun = Instant::now();
        let answer = fetch(&shell, address).await;
        let why = answer.expect_err(&format!("{address} was reached with {said}"));
        assert!(why.contains("refused"), "{address} with {said}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{address} was not refused at once");
    }
}

async fn fetch(shell: &Shell, address: &str) -> Result<String, String> {
    let command = format!("wget -q -O - http://{address}/");
    let output = shell.run(&command, Bounds::within(Duration::from_secs(20))).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.exit == Some(0) { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn boot(socket: &Path) -> Owned {
    let folder = std::env::var_os("GATEHOUSE_TEST_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images"), PathBuf::from)
        .join("small");
    let manifest = std::fs::read_to_string(folder.join("image.toml")).unwrap_or_else(|error| {
        panic!("no guest image in {}: {error}; `make test` builds it", folder.display())
    });
    let manifest: toml::Table = manifest.parse().unwrap();
    let text = |key: &str| manifest[key].as_str().unwrap().to_owned();
    let netdev = format!("stream,id=net0,server=on,addr.type=unix,addr.path={}", socket.display());
    let mut qemu = command("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "null"])
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "256"])
        .arg("-kernel")
        .arg(folder.join(text("kernel")))
        .arg("-initrd")
        .arg(folder.join(text("initrd")))
        .args(["-append", &text("cmdline"), "-netdev", &netdev])
        .args(["-device", "virtio-net-pci,netdev=net0,romfile="])
        .stdin(Stdio::null());
    let qemu = Owned(qemu.spawn().expect("QEMU is installed"));
    let begun = std::time::Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed().as_secs() < 30, "QEMU makes no socket");
        std::thread::sleep(Duration::from_millis(10));
    }
    qemu
}

/// The guest as far as the network knows it.
#[derive(Debug)]
struct Attached {
    network: Network,
    ended: watch::Sender<Option<Ending>>,
}

impl Attached {
    async fn new(socket: &Path, policy: NetworkPolicy) -> Self {
        // QEMU notices only after a moment that the last one has left.
        let network = loop {
            match Network::attach(socket, Arc::new(policy.clone())).await {
                Ok(network) => break network,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        Self { network, ended: watch::Sender::new(None) }
    }
}

impl Vm for Attached {
    fn connect(&self, port: u16) -> Later<'_, io::Result<Box<dyn GuestStream>>> {
        Box::pin(
            async move { Ok(Box::new(self.network.connect(port).await?) as Box<dyn GuestStream>) },
        )
    }
    fn ask_agent(&self, _: Secret) -> Later<'_, io::Result<String>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn pause(&self) -> Later<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn resume(&self) -> Later<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn kill(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
    fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.subscribe()
    }
    fn console(&self, _: usize) -> Later<'_, io::Result<Vec<u8>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
