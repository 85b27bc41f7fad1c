//! Leases, lifetimes and what is given up.

use super::*;

/// Runs `steps` while somebody keeps the time.
async fn timed<T>(room: &Room, steps: impl Future<Output = T>) -> T {
    tokio::select! {
        () = room.dispatcher.keep_time() => unreachable!("it never ends"),
        done = steps => done,
    }
}

async fn poll_for(room: &Room, lease: Option<Duration>, secs: u64) -> Vec<Delivery> {
    let until = Instant::now() + Duration::from_secs(secs);
    let mut found = room.dispatcher.poll(ANN, 1, lease, until).await.unwrap();
    found.iter_mut().for_each(Delivery::sending);
    found.iter_mut().for_each(Delivery::sent);
    found
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_runs_out_wakes_the_next_and_fences_the_first() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    timed(&room, async {
        let begun = Instant::now();
        let old = poll_for(&room, Some(LEASE), 1).await.remove(0);
        let new = poll_for(&room, Some(LEASE), 100).await.remove(0);
        let waited = begun.elapsed();
        assert!(waited >= LEASE && waited < LEASE + Duration::from_secs(1), "{waited:?}");
        assert_eq!(new.task(), old.task());
        let late = room.result(sent.id, Some(old.claim())).await.unwrap();
        assert_eq!(late, Judgement::Late);
        assert!(!room.dispatcher.extend(ANN, sent.id, old.claim(), LEASE));
        assert_eq!(room.state(sent.id).await, State::Taken);
        assert_eq!(room.result(sent.id, Some(new.claim())).await.unwrap(), Judgement::First);
    })
    .await;
    let ending = sent.ended.await.unwrap();
    assert_eq!((ending.outcome, ending.attempts), (Outcome::Done, 2));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_keeps_a_task_and_a_new_start_knows_of_it() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    timed(&room, async {
        let held = poll_for(&room, Some(LEASE), 1).await.remove(0);
        for _ in 0..5 {
            tokio::time::sleep(LEASE / 2).await;
            assert!(room.dispatcher.extend(ANN, sent.id, held.claim(), LEASE));
            assert!(!room.dispatcher.extend(BOB, sent.id, held.claim(), LEASE));
        }
        assert!(poll_for(&room, Some(LEASE), 10).await.is_empty());
        let next = room.restart();
        assert_eq!(next.state(sent.id).await, State::Taken);
        assert!(next.dispatcher.extend(ANN, sent.id, held.claim(), LEASE));
        let since = now_ms();
        assert!(room.dispatcher.extend(ANN, sent.id, held.claim(), 10 * LEASE));
        let noted = crate::store::TaskStore::load(&*room.store).unwrap().open.remove(0).1.unwrap();
        assert!(noted.until_ms >= Some(since + 600_000), "{noted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_never_answered_is_dead_after_its_attempts() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    let begun = Instant::now();
    timed(&room, async {
        for _ in 0..2 {
            assert_eq!(poll_for(&room, Some(LEASE), 100).await.len(), 1);
        }
        assert!(poll_for(&room, Some(LEASE), 100).await.is_empty());
    })
    .await;
    let ending = sent.ended.await.unwrap();
    assert_eq!((ending.outcome, ending.attempts), (Outcome::Dead, 2));
    assert!(ending.reason.is_some() && begun.elapsed() >= 2 * LEASE);
}

#[tokio::test(start_paused = true)]
async fn a_task_expires_although_the_disk_is_full_at_first() {
    let room = Room::new();
    let mut sent = room.send(NewTask { ttl_secs: Some(10), ..new_task(ANN) });
    timed(&room, async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        room.store.mode(Mode::Fail);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(sent.ended.try_recv().is_err(), "its end is not stored");
        assert!(room.take(ANN, 1, None).await.is_empty());
        room.store.mode(Mode::Pass);
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    assert_eq!(sent.ended.await.unwrap().outcome, Outcome::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_taken_without_a_lease_is_given_up_in_the_end() {
    // That is measured by the clock, which does not stand still here.
    let room = Room::with(Settings { result_timeout: Duration::ZERO, ..Settings::default() });
    let taken = room.queue(ANN).await;
    room.take_one(None).await;
    let queued = room.queue(ANN).await;
    let since = now_ms();
    while now_ms() <= since {
        std::hint::spin_loop();
    }
    timed(&room, tokio::time::sleep(Duration::from_secs(70))).await;
    assert_eq!(taken.ended.await.unwrap().outcome, Outcome::Dead);
    assert_eq!(room.state(queued.id).await, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn no_number_of_a_peer_is_too_large() {
    let room = Room::new();
    let huge = NewTask { ttl_secs: Some(u64::MAX), ..new_task(ANN) };
    let sent = room.send(huge);
    let expires_at = room.view(sent.id).await.task.expires_at.unwrap();
    assert!(i64::try_from(expires_at).is_ok(), "SQLite can hold it");
    let delivery = room.take_one(Some(Duration::MAX)).await;
    assert!(room.dispatcher.extend(ANN, sent.id, delivery.claim(), Duration::MAX));
    let (bytes, ..) = room.dispatcher.output(sent.id, u64::MAX, 1, Instant::now()).await.unwrap();
    assert!(bytes.is_empty());
    let piece = room.dispatcher.add_output(ANN, sent.id, None, u64::MAX, "x".into()).await;
    assert_eq!(piece.unwrap().unwrap().next, 0);
    assert_eq!(room.restart().state(sent.id).await, State::Taken);
}
