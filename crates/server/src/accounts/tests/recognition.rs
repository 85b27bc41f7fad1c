//! Who is recognised, how fast, and how often one may guess.

use super::*;
use crate::accounts::attempts::Target;
use crate::accounts::sessions;
use crate::accounts::token::Digest;

#[tokio::test(start_paused = true)]
async fn a_password_is_hashed_once_and_then_remembered() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    assert_eq!(show_now(&accounts, "a:a's"), Seen::Slow);
    assert_eq!(show(&accounts, "a:a's").await, is("a"));
    assert_eq!(show_now(&accounts, "a:a's"), is("a"));
    assert_eq!(show_now(&accounts, "Basic YTphJ3M="), is("a"));
    assert_eq!(show_now(&accounts, "a:wrong"), Seen::Slow);
    assert_eq!(show(&accounts, "a:wrong").await, Seen::Refused);
    assert_eq!(show_now(&accounts, "a:wrong"), Seen::Refused);
    assert_eq!(show(&accounts, "nobody:x").await, Seen::Refused);
    assert_eq!(show_now(&accounts, "nobody:x"), Seen::Refused);
    assert_eq!(show_now(&accounts, "a:"), Seen::Refused);
    assert_eq!(show_now(&accounts, &format!("a:{}", "x".repeat(1025))), Seen::Refused);
    assert_eq!(show_now(&accounts, "a:a's"), is("a"));
}

#[tokio::test]
async fn agents_show_passwords_and_all_others_sessions() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "agent", Role::Agent).await;
    assert!(matches!(log_in(&accounts, "agent").await, Err(AuthError::Refused)));
    for role in [Role::Admin, Role::Operator, Role::Viewer] {
        add(&accounts, role.name(), role).await;
        assert_eq!(show(&accounts, &format!("{role}:{role}'s")).await, Seen::Refused);
        let session = log_in(&accounts, role.name()).await.unwrap();
        assert_eq!((session.identity.role, session.expires_in), (role, DAY));
        assert_eq!(show_now(&accounts, session.token.expose()), is(role.name()));
        let bearer = format!("Bearer {}", session.token.expose());
        assert_eq!(show_now(&accounts, &bearer), is(role.name()));
    }
    assert_eq!(show_now(&accounts, &"0".repeat(64)), Seen::Refused);
    assert_eq!(show(&accounts, "agent:agent's").await, is("agent"));
}

#[tokio::test(start_paused = true)]
async fn guessing_is_limited_and_who_was_right_here_is_not() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    assert_eq!(show(&accounts, "a:a's").await, is("a"));
    for guess in 0..10 {
        assert_eq!(show_at(&accounts, &format!("a:{guess}"), "192.0.2.1").await, Seen::Refused);
    }
    assert_eq!(show_at(&accounts, "a:10", "192.0.2.1").await, Seen::TooMany);
    assert_eq!(show_at(&accounts, "a:9", "192.0.2.1").await, Seen::TooMany);
    // The right one is no oracle for the guesser, nor is the account closed to its owner.
    assert_eq!(show_at(&accounts, "a:a's", "192.0.2.1").await, Seen::TooMany);
    assert_eq!(show_now(&accounts, "a:a's"), is("a"));
    // A name that nobody has is limited alike.
    for guess in 0..10 {
        assert_eq!(show_at(&accounts, &format!("b:{guess}"), "192.0.2.1").await, Seen::Refused);
    }
    assert_eq!(show_at(&accounts, "b:10", "192.0.2.2").await, Seen::TooMany);
    assert_eq!(show_at(&accounts, "c:0", "192.0.2.1").await, Seen::TooMany);
    assert_eq!(show_at(&accounts, "c:0", "192.0.2.2").await, Seen::Refused);
}

#[tokio::test]
async fn who_is_removed_while_the_password_is_hashed_is_nobody() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    let account = accounts.inner.directory().by_name("a").cloned().unwrap();
    accounts.remove_agent("a", unnoted()).await.unwrap();
    let attempt = accounts.inner.attempts().attempt(here(), Target::Named("a"));
    let outcome = accounts.inner.welcome(&account, Digest::of(b""), attempt);
    assert_eq!(seen(outcome), Seen::Refused);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_get_past_no_limit_and_cost_one_hash_where_they_are_right() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    let mut tries = tokio::task::JoinSet::new();
    for guess in 0..60 {
        let accounts = accounts.clone();
        tries.spawn(async move { show(&accounts, &format!("a:{guess}")).await });
    }
    let outcomes = tries.join_all().await;
    let refused = outcomes.iter().filter(|it| **it == Seen::Refused).count();
    assert_eq!(refused, 10, "{outcomes:?}");

    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "a", Role::Agent).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let accounts = accounts.clone();
        tries.spawn(async move { show(&accounts, "a:a's").await });
    }
    assert!(tries.join_all().await.iter().all(|it| *it == is("a")));
}

#[tokio::test]
async fn a_session_outlives_the_server_and_ends_with_logout() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let [kept, ended] = [log_in(&accounts, "root").await, log_in(&accounts, "root").await];
    let [kept, ended] = [kept.unwrap().token, ended.unwrap().token];
    accounts.logout(&Credential::token(ended.expose()).unwrap()).await.unwrap();
    accounts.logout(&Credential::token("nobody's").unwrap()).await.unwrap();
    assert_eq!(show_now(&accounts, ended.expose()), Seen::Refused);
    drop(accounts);
    let accounts = setup.open();
    assert_eq!(show_now(&accounts, kept.expose()), is("root"));
    assert_eq!(show_now(&accounts, ended.expose()), Seen::Refused);
    let stored = std::fs::read(setup.path()).unwrap();
    let is_there = |text: &[u8]| stored.windows(text.len()).any(|part| part == text);
    assert!(!is_there(kept.expose().as_bytes()) && !is_there(b"root's"));
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_sessions() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let first = log_in(&accounts, "root").await.unwrap();
    let account = first.identity.account;
    let fill = move |tx: &database::rusqlite::Connection| {
        for number in 0..sessions::PER_ACCOUNT_MAX {
            let token = Digest::of(&number.to_le_bytes());
            // Later than `first`, and earlier than the next.
            let new = sessions::NewSession { token, account, now: i64::MAX, ended_before: 0 };
            sessions::write(tx, &new)?;
        }
        Ok(())
    };
    accounts.inner.database.write(fill).await.unwrap();
    let last = log_in(&accounts, "root").await.unwrap();
    assert_eq!(show_now(&accounts, last.token.expose()), is("root"));
    drop(accounts);
    let accounts = setup.open();
    assert_eq!(show_now(&accounts, last.token.expose()), is("root"));
    assert_eq!(show_now(&accounts, first.token.expose()), Seen::Refused);
    let count = |tx: &database::rusqlite::Connection| {
        tx.query_row("SELECT count(*) FROM sessions", [], |row| row.get::<_, usize>(0))
    };
    assert_eq!(accounts.inner.database.read_now(count).unwrap(), sessions::PER_ACCOUNT_MAX);
}

#[tokio::test]
async fn a_session_that_was_not_used_has_ended() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let token = log_in(&accounts, "root").await.unwrap().token;
    let set_back = |tx: &database::rusqlite::Connection| {
        tx.execute("UPDATE sessions SET used_at = used_at - 86400000", [])
    };
    accounts.inner.database.write(set_back).await.unwrap();
    drop(accounts);
    assert_eq!(show_now(&setup.open(), token.expose()), Seen::Refused);
}

#[tokio::test]
async fn the_use_of_a_session_is_written_when_an_hour_has_passed() {
    let setup = Setup::new();
    let accounts = setup.open();
    add(&accounts, "root", Role::Admin).await;
    let token = log_in(&accounts, "root").await.unwrap().token;
    let used_at = |accounts: &Accounts| -> i64 {
        let sql = "SELECT used_at FROM sessions";
        accounts.inner.database.read_now(|tx| tx.query_row(sql, [], |row| row.get(0))).unwrap()
    };
    let set_back = |tx: &database::rusqlite::Connection| {
        tx.execute("UPDATE sessions SET used_at = used_at - 3600000", [])
    };
    accounts.inner.database.write(set_back).await.unwrap();
    drop(accounts);
    let accounts = setup.open();
    let before = used_at(&accounts);
    assert_eq!(show_now(&accounts, token.expose()), is("root"));
    accounts.inner.database.write(|_| Ok(())).await.unwrap();
    assert!(used_at(&accounts) >= before + 3_600_000);
}

#[tokio::test(start_paused = true)]
async fn a_hardware_id_is_the_agent_and_guessing_one_counts() {
    let setup = Setup::new();
    let accounts = setup.open();
    assert_eq!(show_now(&accounts, "some-token"), Seen::Refused);
    accounts.add_hardware(&name("pc"), &Secret::new("00:1b:44")).await.unwrap();
    let taken = accounts.add_hardware(&name("other"), &Secret::new("00:1b:44")).await;
    assert!(taken.is_err());
    assert_eq!(show_now(&accounts, "00:1b:44"), is("pc"));
    for guess in 0..20 {
        assert_eq!(show_now(&accounts, &format!("guess{guess}")), Seen::Refused);
    }
    assert_eq!(show_now(&accounts, "guess20"), Seen::TooMany);
    assert_eq!(show_now(&accounts, "00:1b:44"), is("pc"));
    drop(accounts);
    assert_eq!(show_now(&setup.open(), "00:1b:44"), is("pc"));
}

#[tokio::test(start_paused = true)]
async fn a_pass_code_alone_begins_a_session() {
    let setup = Setup::new();
    let accounts = setup.open();
    let log_in = async |code: &str| {
        let session = accounts.login(Login::Passcode(code), here()).await;
        session.map(|session| session.identity.role)
    };
    assert!(matches!(log_in("early").await, Err(AuthError::Refused)));
    accounts.add_passcode(&Secret::new("first")).await.unwrap();
    assert!(matches!(log_in("early").await, Err(AuthError::Refused)));
    accounts.add_passcode(&Secret::new("early")).await.unwrap();
    for code in ["early", "first", "early"] {
        assert_eq!(log_in(code).await.unwrap(), Role::Admin, "{code}");
    }
    assert!(matches!(log_in("").await, Err(AuthError::Refused)));
    let outcomes = [log_in("a").await, log_in("b").await, log_in("a").await].map(|it| it.is_err());
    assert_eq!(outcomes, [true; 3]);
    let mut refused = 6;
    while refused < 50
        && matches!(log_in(&format!("guess{refused}")).await, Err(AuthError::Refused))
    {
        refused += 1;
    }
    assert_eq!(refused, 10);
}
