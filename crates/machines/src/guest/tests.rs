//! Requests to agents and logins, against a guest in this process.

mod guest;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::{Does, FakeGuest, Meet};

use super::agent::{Identity, User};
use super::ssh_key::SshKey;
use super::*;
use crate::hypervisor::Ending;
use crate::image::HostKeyForm;
use crate::machine::MachineId;

fn endpoint(password: &str) -> Login {
    Login {
        user: "endpoint".to_owned(),
        proof: Proof::Password(Secret::new(password)),
        port: ssh::PORT,
    }
}

async fn open(guest: &FakeGuest, password: &str) -> Result<Shell, GuestError> {
    ssh::open(guest, &endpoint(password), None, soon()).await
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Runs a test where the guest's tasks may live; the clock jumps when everybody waits.
fn within_a_guest<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

#[test]
fn a_login_waits_for_a_server_that_is_late() {
    within_a_guest(async {
        let late = [Meet::Refused, Meet::Closed, Meet::ClosedAfterGreeting, Meet::Silence];
        let guest = FakeGuest::new().meeting(late);
        let shell = open(&guest, "secret").await.unwrap();
        assert_eq!(shell.host_key_fingerprint(), guest.key.fingerprint());
        guest.silence_is_over().await;
    });
}

#[test]
fn a_server_that_never_comes_is_given_up_at_the_deadline() {
    within_a_guest(async {
        let guest = FakeGuest::new().meeting(vec![Meet::Refused; 5000]);
        let begun = Instant::now();
        let error = open(&guest, "secret").await.unwrap_err();
        assert!(matches!(error, GuestError::NotThere { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
        assert!((59..=60).contains(&begun.elapsed().as_secs()));
    });
}

#[test]
fn a_refused_login_and_a_foreign_host_key_are_not_tried_again() {
    within_a_guest(async {
        let guest = FakeGuest::new();
        let error = open(&guest, "wrong").await.unwrap_err();
        assert!(matches!(error, GuestError::Refused { .. }), "{error}");

        let guest = FakeGuest::new();
        let login = endpoint("secret");
        let foreign = SshKey::random().unwrap().fingerprint();
        let error = ssh::open(&guest, &login, Some(&foreign), soon()).await.unwrap_err();
        assert!(
            matches!(&error, GuestError::HostKey { found, .. } if *found == guest.key.fingerprint()),
            "{error}"
        );
        ssh::open(&guest, &login, Some(&guest.key.fingerprint()), soon()).await.unwrap();
    });
}

#[test]
fn a_machine_that_ends_ends_the_waiting() {
    within_a_guest(async {
        let guest = FakeGuest::new().meeting([Meet::Silence]);
        let end = async {
            tokio::task::yield_now().await;
            guest.ended.send_replace(Some(Ending::Panicked));
        };
        let begun = Instant::now();
        let (opened, ()) = tokio::join!(open(&guest, "secret"), end);
        assert!(matches!(opened, Err(GuestError::Ended(why)) if why.contains("kernel")));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        guest.silence_is_over().await;
    });
}

#[test]
fn a_command_gives_both_outputs_and_its_status_more_than_once() {
    within_a_guest(async {
        let does =
            Does { stdout: b"out".into(), stderr: b"err".into(), exit: 7, ..Does::default() };
        let guest = FakeGuest::new().doing(does);
        let shell = open(&guest, "secret").await.unwrap();
        for _ in 0..3 {
            let output = shell.run("ls", Bounds::within(Duration::from_secs(1))).await.unwrap();
            assert_eq!(
                (&*output.stdout, &*output.stderr, output.exit),
                (&b"out"[..], &b"err"[..], Some(7))
            );
            assert!(!output.cut_off);
        }
        assert_eq!(*guest.commands.lock().unwrap(), ["ls"; 3]);
    });
}

#[test]
fn a_command_is_limited_in_time_and_in_what_it_says() {
    within_a_guest(async {
        let does = Does { stdout: vec![b'x'; 100_000], never_ends: true, ..Does::default() };
        let guest = FakeGuest::new().doing(does);
        let shell = open(&guest, "secret").await.unwrap();
        let output = shell.run("yes", Bounds::within(Duration::from_secs(1))).await.unwrap();
        assert_eq!((output.stdout.len(), output.cut_off, output.exit), (65_536, true, None));

        let bounds = Bounds { time_max: Duration::from_secs(3), bytes_max: 1_000_000 };
        let error = shell.run("yes", bounds).await.unwrap_err();
        assert!(matches!(error, GuestError::TooSlow(_)), "{error}");
    });
}

fn user<'a>(name: &'a str, password: &'a Secret) -> User<'a> {
    User { name, password, port: 22, authorized_keys: None }
}

#[test]
fn a_set_up_script_has_worked_if_it_says_nothing_whatever_its_status() {
    within_a_guest(async {
        let guest = FakeGuest::new().doing(Does { exit: 3, ..Does::default() });
        let password = Secret::new("Ab9".repeat(40));
        let user = User { port: 1234, ..user("u_1", &password) };
        set_up_by_shell(&guest, &endpoint("secret"), &user, soon()).await.unwrap();
        let command =
            format!("sudo /bin/anweddol_container_setup.sh u_1 {} 1234", password.expose());
        assert_eq!(*guest.commands.lock().unwrap(), [command]);
    });
}

#[test]
fn a_set_up_script_may_end_the_connection_and_another_command_may_not() {
    within_a_guest(async {
        let guest = FakeGuest::new().doing(Does { hangs_up: true, ..Does::default() });
        let password = Secret::new("p");
        set_up_by_shell(&guest, &endpoint("secret"), &user("u", &password), soon()).await.unwrap();
        let shell = open(&guest, "secret").await.unwrap();
        let bounds = Bounds::within(Duration::from_secs(1));
        assert!(matches!(shell.run("ls", bounds).await, Err(GuestError::Ssh(_))));
        assert!(shell.is_closed());
    });
}

#[test]
fn noise_of_a_set_up_script_is_its_error_without_the_password() {
    within_a_guest(async {
        for on_stderr in [false, true] {
            let noise = format!("useradd: {}\n is\0 bad {}", "Ab9".repeat(40), "!".repeat(9000));
            let mut does = Does { never_ends: true, ..Does::default() };
            *(if on_stderr { &mut does.stderr } else { &mut does.stdout }) = noise.into_bytes();
            let guest = FakeGuest::new().doing(does);
            let password = Secret::new("Ab9".repeat(40));
            let error = set_up_by_shell(&guest, &endpoint("secret"), &user("u", &password), soon())
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("says: useradd: …  is  bad !!!"), "{error}");
            assert!(error.len() < 400, "{error}");
        }
    });
}

#[test]
fn what_cannot_be_said_in_a_command_line_is_not_said() {
    within_a_guest(async {
        let guest = FakeGuest::new();
        let check = async |name: &str, password: &str| {
            let password = Secret::new(password);
            let login = endpoint("secret");
            assert!(set_up_by_shell(&guest, &login, &user(name, &password), soon()).await.is_err());
        };
        check("", "x").await;
        check("-u", "x").await;
        check("u;reboot", "x").await;
        check(&"u".repeat(33), "x").await;
        check("u", "").await;
        check("u", "x y").await;
        check("u", "$(reboot)").await;
        assert!(guest.commands.lock().unwrap().is_empty());
    });
}

#[test]
fn warming_up_proves_that_the_user_can_work() {
    within_a_guest(async {
        let guest = FakeGuest::new();
        let warm = async |guest: &FakeGuest, password: &str| {
            let key = guest.key.fingerprint();
            warm_up(guest, "endpoint", &Secret::new(password), Some(&key), soon()).await
        };
        assert_eq!(warm(&guest, "secret").await.unwrap(), guest.key.fingerprint());
        assert!(warm(&guest, "other").await.is_err());
        assert_eq!(*guest.commands.lock().unwrap(), ["true"]);
        let broken = FakeGuest::new().doing(Does { exit: 127, ..Does::default() });
        assert!(warm(&broken, "secret").await.is_err());
    });
}

/// The words of what the agent was asked last.
fn words(guest: &FakeGuest) -> Vec<String> {
    let asked = guest.asked.lock().unwrap();
    let line = asked.last().unwrap();
    assert!(line.is_ascii() && !line.contains('\n') && line.len() < 16_384);
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_refreshed_guest_gets_fresh_entropy_the_time_and_an_identity() {
    let guest = FakeGuest::new();
    let id = MachineId::random();
    let identity = Identity::random(id).unwrap();
    agent::refresh(&guest, Some((&identity, HostKeyForm::Dropbear))).await.unwrap();
    let first = words(&guest);
    assert_eq!((first.len(), first[0].as_str()), (7, "refresh"));
    assert_eq!(STANDARD.decode(&first[1]).unwrap().len(), 64);
    let said = Duration::from_nanos(first[2].parse().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(said <= now && now - said < Duration::from_secs(10));
    assert_eq!(first[3], format!("m-{}", id.short()));
    assert!(first[4].len() == 32 && first[4].bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(first[5].starts_with("52:54:00:") && first[5].len() == 17);
    assert_eq!(STANDARD.decode(&first[6]).unwrap().len(), 83);

    agent::refresh(&guest, None).await.unwrap();
    let second = words(&guest);
    assert_eq!(second[3..], ["-"; 4]);
    assert_ne!(second[1], first[1]);
    let other = Identity::random(id).unwrap();
    assert_ne!((&other.machine_id, &other.mac), (&identity.machine_id, &identity.mac));
}

#[tokio::test]
async fn a_user_is_made_with_a_hash_and_never_with_the_password() {
    let guest = FakeGuest::new();
    let password = Secret::new("Ab9".repeat(40));
    let with_keys =
        User { authorized_keys: Some("ssh-ed25519 AAAA me\n"), ..user("u1", &password) };
    agent::set_up(&guest, &with_keys).await.unwrap();
    let said = words(&guest);
    assert_eq!((said[0].as_str(), said[1].as_str(), said[3].as_str()), ("setup", "u1", "22"));
    assert!(said[2].starts_with("$6$rounds=1000$"));
    assert_eq!(STANDARD.decode(&said[4]).unwrap(), b"ssh-ed25519 AAAA me\n");
    assert!(!said.join(" ").contains(password.expose()));

    agent::set_up(&guest, &user("u1", &password)).await.unwrap();
    assert_eq!(words(&guest)[4], "-");
    agent::replace_keys(&guest, "k\n").await.unwrap();
    assert_eq!(words(&guest), ["keys", STANDARD.encode("k\n").as_str()]);

    let asked = guest.asked.lock().unwrap().len();
    assert!(agent::set_up(&guest, &user("u 1", &password)).await.is_err());
    assert!(agent::replace_keys(&guest, &"k".repeat(20_000)).await.is_err());
    assert_eq!(guest.asked.lock().unwrap().len(), asked);
}

#[tokio::test]
async fn an_agent_that_says_no_or_something_else_is_an_error_that_says_which() {
    let check = async |answer: Result<&str, &str>, wanted: &str| {
        let answer = answer.map(str::to_owned).map_err(str::to_owned);
        let guest = FakeGuest { answer, ..FakeGuest::new() };
        let error = agent::refresh(&guest, None).await.unwrap_err().to_string();
        assert!(error.contains("refresh") && error.contains(wanted), "{error}");
        let error = agent::hello(&guest).await.unwrap_err().to_string();
        assert!(error.contains("hello") && error.contains(wanted), "{error}");
    };
    check(Err("no space left"), "no space left").await;
    check(Ok("gatehouse-agent 2"), "gatehouse-agent 2").await;
    let guest = FakeGuest { answer: Ok("gatehouse-agent 1".to_owned()), ..FakeGuest::new() };
    agent::hello(&guest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_not_waited_for_for_ever() {
    let guest = FakeGuest { is_mute: true, ..FakeGuest::new() };
    let error = agent::refresh(&guest, None).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 20 seconds"), "{error}");
}

#[test]
fn an_excerpt_is_one_bounded_line_without_the_secret() {
    let secret = Secret::new("s3cret");
    assert_eq!(excerpt(" a\n\tb s3cret ", Some(&secret)), "a  b …");
    assert_eq!(excerpt("ok", None), "ok");
    assert_eq!(excerpt(&"é".repeat(1000), None).chars().count(), EXCERPT_CHARS_MAX + 1);
}
