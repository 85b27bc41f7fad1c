//! What is changed, by us and by others, and who learns of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use super::*;
use crate::accounts::milliseconds;
use crate::accounts::token::Digest;
use crate::accounts::{ChangeError, Entry, audit, directory, rows};

fn names(accounts: &Accounts) -> Vec<String> {
    accounts.agents().iter().map(|agent| agent.name.to_string()).collect()
}

#[tokio::test]
async fn what_another_process_adds_and_removes_holds_at_once() {
    let setup = Setup::new();
    let accounts = setup.open();
    elsewhere(&setup, &accounts, |other| {
        add_elsewhere(other, "a", Role::Agent);
        add_elsewhere(other, "root", Role::Admin);
    })
    .await;
    assert_eq!(show(&accounts, "a:a's").await, is("a"));
    let token = log_in(&accounts, "root").await.unwrap().token;
    assert_eq!(show(&accounts, token.expose()).await, is("root"));
    elsewhere(&setup, &accounts, |other| {
        remove_elsewhere(other, "a");
        remove_elsewhere(other, "root");
        assert!(!admin::remove(other, "nobody").unwrap());
    })
    .await;
    assert_eq!(show_now(&accounts, "a:a's"), Seen::Slow);
    assert_eq!(show(&accounts, "a:a's").await, Seen::Refused);
    assert_eq!(show(&accounts, token.expose()).await, Seen::Refused);
    assert_eq!(setup.departed(), ["a", "root"]);
    let left = Digest::of(token.expose().as_bytes());
    assert_eq!(accounts.inner.sessions().find(&left, 0), None, "kept in memory");
    // One of the same name is another.
    elsewhere(&setup, &accounts, |other| add_elsewhere(other, "root", Role::Admin)).await;
    assert_eq!(show(&accounts, token.expose()).await, Seen::Refused);
}

#[tokio::test]
async fn a_switch_that_another_process_turns_holds_here() {
    let setup = Setup::new();
    let accounts = setup.open();
    elsewhere(&setup, &accounts, |other| {
        other.write(|tx| rows::set_setting(tx, "self_registration", true)).wait().unwrap();
    })
    .await;
    accounts.register(&name("a"), &Secret::new("s"), here(), unnoted()).await.unwrap();
    assert!(accounts.self_registration());
}

#[tokio::test]
async fn a_removal_is_told_while_nobody_asks() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    let mut following = tokio::task::JoinSet::new();
    let followed = accounts.clone();
    following.spawn(async move { followed.follow().await });
    elsewhere(&setup, &accounts, |other| remove_elsewhere(other, "a")).await;
    while setup.departed().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&accounts), [""; 0]);
}

#[test]
fn the_command_line_takes_no_name_twice_and_lists_all() {
    let setup = Setup::new();
    let database = setup.database();
    let add = |name: &str, role| admin::add(&database, name, role, &Secret::new("x"));
    add("b", Role::Agent).unwrap();
    add("a", Role::Viewer).unwrap();
    assert!(matches!(add("a", Role::Agent), Err(ChangeError::NameTaken)));
    assert!(matches!(add("a:b", Role::Agent), Err(ChangeError::Name(_))));
    let empty = admin::add(&database, "c", Role::Agent, &Secret::new(""));
    assert!(matches!(empty, Err(ChangeError::Password(_))));
    admin::add_hardware(&database, "pc", &Secret::new("hw")).unwrap();
    admin::add_passcode(&database, &Secret::new("code")).unwrap();
    let listed = admin::list(&database).unwrap();
    let roles: Vec<_> = listed.iter().map(|it| it.role).collect();
    assert_eq!(roles, [Role::Agent, Role::Viewer, Role::Agent, Role::Admin]);
    assert_eq!([&*listed[0].name, &*listed[1].name], ["b", "a"]);
    assert_eq!(show_now(&setup.open(), "hw"), is("pc"));
    assert!(!admin::remove_passcode(&database, &Secret::new("other")).unwrap());
    assert!(admin::remove_passcode(&database, &Secret::new("code")).unwrap());
    assert_eq!(admin::list(&database).unwrap().len(), 3);
}

#[tokio::test]
async fn agents_are_renamed_and_removed_with_what_is_theirs() {
    let setup = Setup::new();
    let accounts = setup.open();
    for agent in ["web-1", "db", "web-2"] {
        add(&accounts, agent, Role::Agent).await;
    }
    add(&accounts, "root", Role::Admin).await;
    assert_eq!(names(&accounts), ["web-1", "db", "web-2"]);
    assert_eq!(show(&accounts, "db:db's").await, is("db"));
    let before = accounts.agent("db").unwrap().account;
    let renamed = accounts.rename_agent("db", &name("web-3"), unnoted()).await.unwrap();
    assert_eq!((renamed.account, &*renamed.name), (before, "web-3"));
    assert_eq!(show_now(&accounts, "web-3:db's"), is("web-3"));
    assert_eq!(accounts.agent("db"), None);
    assert_eq!(accounts.agent("root"), None);
    assert_eq!(accounts.agent_by_id(before), accounts.agent("web-3"));
    let webs: Vec<_> = accounts.agents_beginning("web-").into_iter().map(|it| it.name).collect();
    assert_eq!(webs.iter().map(|it| &**it).collect::<Vec<_>>(), ["web-1", "web-3", "web-2"]);

    let rename =
        async |old: &str, new: &str| accounts.rename_agent(old, &name(new), unnoted()).await;
    assert!(matches!(rename("db", "x").await, Err(ChangeError::Unknown)));
    assert!(matches!(rename("root", "x").await, Err(ChangeError::Unknown)));
    assert!(matches!(rename("web-1", "root").await, Err(ChangeError::NameTaken)));
    assert!(rename("web-1", "web-1").await.is_ok());

    accounts.remove_agent("web-3", unnoted()).await.unwrap();
    for name in ["web-3", "root", "nobody"] {
        assert!(
            matches!(accounts.remove_agent(name, unnoted()).await, Err(ChangeError::Unknown)),
            "{name}"
        );
    }
    assert_eq!(show(&accounts, "web-3:db's").await, Seen::Refused);
    assert_eq!(setup.departed(), ["web-3"]);
    assert_eq!(names(&setup.open()), ["web-1", "web-2"]);
}

#[tokio::test]
async fn agents_add_themselves_only_where_they_may() {
    let setup = Setup::new();
    let accounts = setup.open();
    let secret = Secret::new("s");
    let refused = accounts.register(&name("a"), &secret, here(), unnoted()).await;
    assert!(matches!(refused, Err(ChangeError::Disabled)));
    accounts.set_self_registration(true, unnoted()).await.unwrap();
    drop(accounts);
    let accounts = setup.open();
    assert!(accounts.self_registration(), "the switch is forgotten");
    accounts.register(&name("a"), &secret, here(), unnoted()).await.unwrap();
    assert_eq!(show_now(&accounts, "a:s"), is("a"));
    let taken = accounts.register(&name("a"), &secret, here(), unnoted()).await;
    assert!(matches!(taken, Err(ChangeError::NameTaken)));
    let id = accounts
        .register_hardware(&name("pc"), &Secret::new("hw"), here(), unnoted())
        .await
        .unwrap();
    accounts.set_self_registration(false, unnoted()).await.unwrap();
    let again = accounts
        .register_hardware(&name("renamed pc"), &Secret::new("hw"), here(), unnoted())
        .await;
    assert_eq!(again.unwrap(), id);
    let refused =
        accounts.register_hardware(&name("pc2"), &Secret::new("hw2"), here(), unnoted()).await;
    assert!(matches!(refused, Err(ChangeError::Disabled)));
}

#[tokio::test]
async fn an_enrolment_token_is_good_for_its_uses() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let root = log_in(&accounts, "root").await.unwrap().identity.account;
    let token = accounts.enrol_token(root, DAY, 2, unnoted()).await.unwrap();
    let taken = accounts.enrol(token.expose(), &name("root"), here(), unnoted()).await;
    assert!(matches!(taken, Err(ChangeError::NameTaken)));
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (accounts, token) = (accounts.clone(), token.clone());
        tries.spawn(async move {
            let name = name(&format!("a{number}"));
            accounts.enrol(token.expose(), &name, here(), unnoted()).await.ok()
        });
    }
    let enrolled: Vec<_> = tries.join_all().await.into_iter().flatten().collect();
    assert_eq!(enrolled.len(), 2, "a name that was taken costs no use, an agent one");
    drop(accounts);
    let accounts = setup.open();
    for agent in enrolled {
        let header = format!("{}:{}", agent.name, agent.secret.expose());
        assert_eq!(show_now(&accounts, &header), is(&agent.name));
        assert_eq!(show_now(&accounts, &format!("{header}0")), Seen::Refused);
    }
}

#[tokio::test]
async fn an_enrolment_token_has_bounds_ends_in_time_and_dies_with_its_maker() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let root = log_in(&accounts, "root").await.unwrap().identity.account;
    for (secs, uses) in [(0, 1), (1, 0), (366 * 86_400 + 1, 1), (1, 100_001)] {
        let refused = accounts.enrol_token(root, Duration::from_secs(secs), uses, unnoted()).await;
        assert!(matches!(refused, Err(ChangeError::TokenBounds)), "{secs} {uses}");
    }
    let enrol = async |token: &str| accounts.enrol(token, &name("a"), here(), unnoted()).await;
    assert!(matches!(enrol("never made").await, Err(ChangeError::BadToken)));
    let expired = accounts.enrol_token(root, DAY, 1, unnoted()).await.unwrap();
    let set_back = |tx: &database::rusqlite::Connection| {
        tx.execute("UPDATE enrolments SET expires_at = expires_at - 86400000", [])
    };
    accounts.inner.database.write(set_back).await.unwrap();
    assert!(matches!(enrol(expired.expose()).await, Err(ChangeError::BadToken)));
    let orphaned = accounts.enrol_token(root, DAY, 1, unnoted()).await.unwrap();
    elsewhere(&setup, &accounts, |other| remove_elsewhere(other, "root")).await;
    assert!(matches!(enrol(orphaned.expose()).await, Err(ChangeError::BadToken)));
    let refused = accounts.enrol_token(root, DAY, 1, unnoted()).await;
    assert!(matches!(refused, Err(ChangeError::Unknown)));
}

#[tokio::test(start_paused = true)]
async fn guessing_a_token_or_a_hardware_id_is_slowed_down_and_knowing_one_is_not() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let root = log_in(&accounts, "root").await.unwrap().identity.account;
    let token = accounts.enrol_token(root, DAY, 1, unnoted()).await.unwrap();
    accounts.add_hardware(&name("pc"), &Secret::new("hw")).await.unwrap();
    for number in 0..10 {
        let enrolled =
            accounts.enrol(&format!("guess {number}"), &name("a"), here(), unnoted()).await;
        assert!(matches!(enrolled, Err(ChangeError::BadToken)), "{number}");
        let guess = Secret::new(format!("guess {number}"));
        let registered = accounts.register_hardware(&name("a"), &guess, here(), unnoted()).await;
        assert!(matches!(registered, Err(ChangeError::Disabled)), "{number}");
    }
    let is_slowed = |outcome| matches!(outcome, Err(ChangeError::TooManyAttempts { .. }));
    let enrolled = accounts.enrol("guess", &name("a"), here(), unnoted()).await;
    assert!(is_slowed(enrolled.map(|it| it.account)));
    let registered =
        accounts.register_hardware(&name("a"), &Secret::new("guess"), here(), unnoted()).await;
    assert!(is_slowed(registered));
    accounts.register_hardware(&name("pc"), &Secret::new("hw"), here(), unnoted()).await.unwrap();
    accounts.enrol(token.expose(), &name("a"), here(), unnoted()).await.unwrap();
}

#[tokio::test]
async fn a_change_whose_caller_has_left_is_done_all_the_same() {
    let setup = Setup::new();
    let accounts = setup.open();
    accounts.add_hardware(&name("a"), &Secret::new("hw")).await.unwrap();
    let rename_to = name("b");
    let mut rename = Box::pin(accounts.rename_agent("a", &rename_to, unnoted()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = rename.as_mut().poll(&mut context);
    drop(rename);
    accounts.inner.database.write(|_| Ok(())).await.unwrap();
    assert_eq!(names(&accounts), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_and_disk_agree_whoever_changes_what_at_once() {
    let setup = Setup::new();
    let accounts = setup.open();
    let mut busy = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let accounts = accounts.clone();
        busy.spawn(async move {
            let (own, hwid) = (name(&format!("own{number}")), format!("hw{number}"));
            accounts.add_hardware(&own, &Secret::new(hwid.clone())).await.unwrap();
            let from = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)).to_string();
            assert_eq!(show_at(&accounts, &hwid, &from).await, is(own.as_str()));
            if number % 3 == 0 {
                accounts.remove_agent(own.as_str(), unnoted()).await.unwrap();
                assert_ne!(show_at(&accounts, &hwid, &from).await, is(own.as_str()));
            }
        });
    }
    let other = setup.database();
    let there = tokio::task::spawn_blocking(move || {
        for number in 0..100 {
            let name = format!("other{number}");
            admin::add_hardware(&other, &name, &Secret::new(name.clone())).unwrap();
            if number % 3 == 0 {
                admin::remove(&other, &name).unwrap();
            }
        }
        other
    });
    busy.join_all().await;
    let other = there.await.unwrap();
    elsewhere(&setup, &accounts, |other| add_elsewhere(other, "last", Role::Agent)).await;
    assert_eq!(show(&accounts, "last:last's").await, is("last"));
    let on_disk: BTreeSet<String> =
        other.read_now(directory::read).unwrap().iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names(&accounts).into_iter().collect::<BTreeSet<_>>(), on_disk);
    assert_eq!(on_disk.len(), 66 + 66 + 1);
}

#[tokio::test]
async fn the_audit_log_tells_what_was_written_to_it() {
    let setup = Setup::new();
    let accounts = setup.open();
    let entry = Entry { who: "root", from: Some(here()), act: "login", what: "", outcome: "ok" };
    accounts.note(&entry).await;
    accounts.note(&Entry { outcome: "refused", ..entry }).await;
    let page = accounts.audit_page(None, audit::PAGE_MAX).await.unwrap();
    let outcomes: Vec<_> = page.iter().map(|entry| &*entry.outcome).collect();
    assert_eq!(outcomes, ["refused", "ok"]);
    assert!(page.iter().all(|entry| entry.at > 1_600_000_000_000 && entry.from == "127.0.0.1"));
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    let broken = || -> database::Rider {
        Box::new(|tx| tx.execute("INSERT INTO nothing VALUES (1)", []).map(drop))
    };
    let is_down = |error: ChangeError| assert!(matches!(error, ChangeError::Unavailable(_)));
    is_down(accounts.rename_agent("a", &name("b"), broken()).await.unwrap_err());
    is_down(accounts.remove_agent("a", broken()).await.unwrap_err());
    accounts.set_self_registration(true, broken()).await.unwrap_err();
    assert_eq!((names(&accounts), accounts.self_registration()), (vec!["a".to_owned()], false));
    accounts.set_self_registration(true, unnoted()).await.unwrap();
    is_down(accounts.register(&name("b"), &Secret::new("s"), here(), broken()).await.unwrap_err());
    drop(accounts);
    assert_eq!(names(&setup.open()), ["a"]);
}

/// What the log tells, the oldest first.
async fn logged(accounts: &Accounts) -> Vec<[String; 4]> {
    let page = accounts.audit_page(None, audit::PAGE_MAX).await.unwrap();
    page.into_iter().rev().map(|it| [it.who, it.from, it.act, it.what]).collect()
}

#[tokio::test]
async fn what_is_done_is_in_the_log_as_soon_as_it_is_told_and_once() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    log_in(&accounts, "root").await.unwrap();
    let entry = Entry { who: "pc", from: Some(here()), act: "x", what: "", outcome: "ok" };
    accounts.set_self_registration(true, entry.rider()).await.unwrap();
    for _ in 0..2 {
        let (name, hwid) = (name("pc"), Secret::new("hw"));
        accounts.register_hardware(&name, &hwid, here(), entry.rider()).await.unwrap();
    }
    let refused = accounts.rename_agent("nobody", &name("b"), entry.rider()).await;
    assert!(matches!(refused, Err(ChangeError::Unknown)));
    let of_pc = ["pc", "127.0.0.1", "x", ""].map(str::to_owned);
    let login = ["root", "127.0.0.1", "login", ""].map(str::to_owned);
    assert_eq!(logged(&accounts).await, [login, of_pc.clone(), of_pc]);
}

#[tokio::test]
async fn what_commands_do_to_the_file_is_in_the_log() {
    let setup = Setup::new();
    let accounts = setup.open();
    elsewhere(&setup, &accounts, |other| {
        add_elsewhere(other, "a", Role::Agent);
        assert!(admin::add(other, "a", Role::Admin, &Secret::new("x")).is_err());
        admin::add_hardware(other, "pc", &Secret::new("hw")).unwrap();
        admin::add_passcode(other, &Secret::new("code")).unwrap();
        remove_elsewhere(other, "a");
        assert!(!admin::remove(other, "nobody").unwrap());
    })
    .await;
    let user = format!("uid:{}", rustix::process::getuid().as_raw());
    let entry = |act: &str, what: &str| [&user, "local", act, what].map(str::to_owned);
    let expected = [
        entry("add account", "a (agent)"),
        entry("add account", "pc (agent)"),
        entry("add account", "a pass-code"),
        entry("remove account", "a"),
    ];
    assert_eq!(logged(&accounts).await, expected);
}

#[tokio::test]
async fn agents_add_themselves_until_there_are_too_many() {
    let setup = Setup::new();
    let accounts = setup.open();
    accounts.set_self_registration(true, unnoted()).await.unwrap();
    add(&accounts, "root", Role::Admin).await;
    add(&accounts, "a", Role::Agent).await;
    let register = async |text: &str| {
        accounts.register(&name(text), &Secret::new("s"), here(), unnoted()).await
    };
    let hardware = async |text: &str| {
        accounts.register_hardware(&name(text), &Secret::new(text), here(), unnoted()).await
    };
    register("b").await.unwrap();
    let third = hardware("c").await.unwrap();
    assert!(matches!(register("d").await, Err(ChangeError::Full)));
    assert!(matches!(hardware("d").await, Err(ChangeError::Full)));
    assert_eq!(hardware("c").await.unwrap(), third, "who is known already may always");
    add(&accounts, "by hand", Role::Agent).await;
    for gone in ["a", "by hand"] {
        accounts.remove_agent(gone, unnoted()).await.unwrap();
    }
    register("d").await.unwrap();
}

#[tokio::test]
async fn entries_go_when_their_time_is_over() {
    let setup = Setup::new();
    let accounts = setup.open();
    let entry = Entry { who: "x", from: None, act: "old", what: "", outcome: "ok" };
    let now = milliseconds(SystemTime::now());
    let day = i64::try_from(DAY.as_millis()).unwrap();
    let old: Vec<_> = (0..3 * audit::DROPPED_MAX).map(|_| entry.prepare(now - day - 1)).collect();
    let put = move |tx: &_| old.iter().try_for_each(|entry| audit::write(tx, entry));
    accounts.inner.database.write(put).await.unwrap();
    accounts.note(&Entry { act: "new", ..entry }).await;
    let mut house = tokio::task::JoinSet::new();
    let keeper = accounts.clone();
    house.spawn(async move { keeper.keep_house().await });
    let found = loop {
        let found = logged(&accounts).await;
        if found.len() <= 1 {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(found, [["x", "local", "new", ""].map(str::to_owned)]);
}
