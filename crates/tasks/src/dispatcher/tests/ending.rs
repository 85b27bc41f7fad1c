//! Results, cancelling, waiting for the end, output and events.

use super::*;
use crate::store::OutputEnd;

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_when_the_result_is_stored_and_not_before() {
    let room = Room::new();
    let mut sent = room.queue(ANN).await;
    room.take_one(None).await;
    room.store.mode(Mode::Hold);
    let dispatcher = room.dispatcher.clone();
    let mut answers = JoinSet::new();
    answers.spawn(async move { dispatcher.complete(ANN, TaskId(1), None, "42".into()).await });
    settle().await;
    assert!(sent.ended.try_recv().is_err() && answers.try_join_next().is_none());
    assert_eq!(room.state(sent.id).await, State::Taken);
    room.store.release();
    let ending = sent.ended.await.unwrap();
    assert_eq!((ending.outcome, ending.result.as_deref()), (Outcome::Done, Some(&b"42"[..])));
    assert_eq!(answers.join_next().await.unwrap().unwrap().unwrap(), Judgement::First);
    assert_eq!(room.view(sent.id).await.ending, Some(Ending::clone(&ending)));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_as_its_waiter_leaves_is_kept() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    room.take_one(None).await;
    room.store.mode(Mode::Hold);
    let until = Instant::now() + LEASE;
    let dispatcher = room.dispatcher.clone();
    let mut waits = JoinSet::new();
    waits.spawn(async move { dispatcher.wait_for_end(TaskId(1), until).await });
    let dispatcher = room.dispatcher.clone();
    let mut answers = JoinSet::new();
    answers.spawn(async move {
        tokio::time::sleep_until(until).await;
        dispatcher.complete(ANN, TaskId(1), None, "42".into()).await
    });
    waits.join_next().await.unwrap().unwrap();
    assert_eq!(Instant::now(), until);
    drop(sent.ended);
    settle().await;
    room.store.release();
    assert_eq!(answers.join_next().await.unwrap().unwrap().unwrap(), Judgement::First);
    // Who comes back finds it without waiting.
    room.dispatcher.wait_for_end(TaskId(1), until + LEASE).await;
    assert_eq!(Instant::now(), until);
    assert_eq!(room.view(TaskId(1)).await.ending.unwrap().result.as_deref(), Some(&b"42"[..]));
}

#[tokio::test(start_paused = true)]
async fn who_waits_and_hangs_up_leaves_nothing_behind() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    for _ in 0..100 {
        let until = Instant::now() + LEASE;
        let wait = room.dispatcher.wait_for_end(sent.id, until);
        let hung_up = tokio::time::timeout(Duration::from_millis(1), wait).await;
        assert!(hung_up.is_err());
    }
    let waiters = room.dispatcher.shared.ledger().get(sent.id).unwrap().waiters.len();
    assert!(waiters <= 2, "{waiters}");
}

#[tokio::test(start_paused = true)]
async fn the_first_result_wins_and_the_others_are_kept_as_late() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    let claim = room.take_one(Some(LEASE)).await.claim();
    let complete = |agent, claim, text: &'static str| {
        room.dispatcher.complete(agent, sent.id, claim, text.into())
    };
    assert_eq!(complete(BOB, None, "1").await.unwrap(), Judgement::Unknown);
    assert_eq!(complete(ANN, Some(Claim(1)), "2").await.unwrap(), Judgement::Late);
    assert_eq!(complete(ANN, Some(claim), "3").await.unwrap(), Judgement::First);
    assert_eq!(complete(ANN, Some(claim), "4").await.unwrap(), Judgement::Late);
    assert_eq!(complete(ANN, None, "5").await.unwrap(), Judgement::Late);
    assert_eq!(complete(BOB, None, "6").await.unwrap(), Judgement::Unknown, "foreign");
    let unknown = room.dispatcher.complete(ANN, TaskId(i64::MAX.unsigned_abs()), None, "7".into());
    assert_eq!(unknown.await.unwrap(), Judgement::Unknown);
    assert_eq!(sent.ended.await.unwrap().result.as_deref(), Some(&b"3"[..]));
    let late: Vec<Late> = room.dispatcher.late_results(sent.id).await.unwrap();
    let late: Vec<&[u8]> = late.iter().map(|late| &*late.result).collect();
    assert_eq!(late, [b"2", b"4", b"5"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_cancelling_and_a_result_at_once_one_wins() {
    for is_cancelled_first in [true, false] {
        let room = Room::new();
        let sent = room.queue(ANN).await;
        room.take_one(None).await;
        room.store.mode(Mode::Hold);
        let (one, other) = (room.dispatcher.clone(), room.dispatcher.clone());
        let mut cancels = JoinSet::new();
        let mut results = JoinSet::new();
        let mut cancel = || {
            let one = one.clone();
            cancels.spawn(async move { one.cancel(TaskId(1), "no", false, None).await });
        };
        if is_cancelled_first {
            cancel();
            settle().await;
        }
        results.spawn(async move { other.complete(ANN, TaskId(1), None, "1".into()).await });
        settle().await;
        if !is_cancelled_first {
            cancel();
            settle().await;
        }
        room.store.release();
        let cancelled = cancels.join_next().await.unwrap().unwrap();
        let judged = results.join_next().await.unwrap().unwrap().unwrap();
        let ending = sent.ended.await.unwrap();
        if is_cancelled_first {
            assert!(cancelled.is_ok() && judged == Judgement::Late);
            assert_eq!(
                (ending.outcome, ending.reason.as_deref()),
                (Outcome::Cancelled, Some("no"))
            );
            assert_eq!(room.dispatcher.late_results(TaskId(1)).await.unwrap().len(), 1);
        } else {
            assert!(matches!(cancelled, Err(CancelError::Ended)) && judged == Judgement::First);
            assert_eq!(ending.outcome, Outcome::Done);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_is_not_handed_out_and_what_has_ended_not_cancelled() {
    let room = Room::new();
    let queued = room.queue(ANN).await.id;
    let cancel = |id, only_queued| room.dispatcher.cancel(id, "no", only_queued, None);
    cancel(queued, true).await.unwrap();
    assert!(room.take(ANN, 9, None).await.is_empty());
    assert!(matches!(cancel(queued, false).await, Err(CancelError::Ended)));
    assert!(matches!(cancel(TaskId(99), false).await, Err(CancelError::Unknown)));
    let taken = room.queue(ANN).await.id;
    room.take_one(None).await;
    assert!(matches!(cancel(taken, true).await, Err(CancelError::Ended)));
    assert_eq!(room.state(taken).await, State::Taken, "its agent has it");
    cancel(taken, false).await.unwrap();
    assert_eq!(room.state(taken).await, State::Ended(Outcome::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_stored_did_not_happen() {
    let room = Room::new();
    let mut sent = room.queue(ANN).await;
    room.store.mode(Mode::Fail);
    let refused = room.dispatcher.cancel(sent.id, "no", false, None).await;
    assert!(matches!(refused, Err(CancelError::Store(StoreError::Full))));
    let delivery = room.take_one(None).await;
    assert_eq!(delivery.task(), sent.id, "it is in the queue as before");
    assert!(matches!(room.result(sent.id, None).await, Err(StoreError::Full)));
    assert!(sent.ended.try_recv().is_err());
    assert_eq!(room.state(sent.id).await, State::Taken);
    room.store.mode(Mode::Pass);
    assert_eq!(room.result(sent.id, None).await.unwrap(), Judgement::First);
    assert_eq!(sent.ended.await.unwrap().outcome, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_was_late_to_one_that_could_not_be_stored_is_the_first() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    room.take_one(None).await;
    room.store.mode(Mode::Hold);
    let mut results = JoinSet::new();
    for text in ["1", "2"] {
        let dispatcher = room.dispatcher.clone();
        results.spawn(async move {
            (text, dispatcher.complete(ANN, TaskId(1), None, text.into()).await)
        });
        settle().await;
    }
    room.store.fail_first();
    room.store.mode(Mode::Pass);
    room.store.release();
    let mut results = results.join_all().await;
    results.sort_by_key(|(text, _)| *text);
    assert!(matches!(results[0], ("1", Err(StoreError::Full))), "{results:?}");
    assert!(matches!(results[1], ("2", Ok(Judgement::First))), "{results:?}");
    assert_eq!(sent.ended.await.unwrap().result.as_deref(), Some(&b"2"[..]));
    assert_eq!(room.state(sent.id).await, State::Ended(Outcome::Done));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_fails_on_the_way_brings_a_parked_poll_its_task() {
    let room = Room::new();
    room.queue(ANN).await;
    room.store.mode(Mode::Hold);
    let dispatcher = room.dispatcher.clone();
    let mut cancels = JoinSet::new();
    cancels.spawn(async move { dispatcher.cancel(TaskId(1), "no", false, None).await });
    settle().await;
    let mut polls = JoinSet::new();
    room.park(&mut polls, ANN);
    settle().await;
    assert!(polls.try_join_next().is_none(), "it may be ending");
    room.store.fail();
    assert_eq!(polls.join_next().await.unwrap().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_view_read_while_the_task_ended_shows_its_end() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    room.take_one(None).await;
    room.store.hold_reads(true);
    let dispatcher = room.dispatcher.clone();
    let mut views = JoinSet::new();
    views.spawn(async move { dispatcher.task(TaskId(1)).await });
    settle().await;
    room.store.wait_for_reader();
    assert_eq!(room.result(sent.id, None).await.unwrap(), Judgement::First);
    room.store.hold_reads(false);
    let view = views.join_next().await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(view.state, State::Ended(Outcome::Done));
}

/// Looking takes time here, so that what comes meanwhile must not be missed.
#[tokio::test(start_paused = true)]
async fn output_and_an_end_between_looking_and_waiting_are_not_missed() {
    for is_end in [false, true] {
        let room = Room::new();
        room.queue(ANN).await;
        room.take_one(None).await;
        let begun = Instant::now();
        room.store.hold_reads(true);
        let dispatcher = room.dispatcher.clone();
        let mut follows = JoinSet::new();
        follows.spawn(async move { dispatcher.output(TaskId(1), 0, 100, begun + LEASE).await });
        settle().await;
        room.store.wait_for_reader();
        if is_end {
            room.result(TaskId(1), None).await.unwrap();
        } else {
            let added = room.dispatcher.add_output(ANN, TaskId(1), None, 0, "abc".into()).await;
            assert_eq!(added.unwrap(), Some(OutputEnd { next: 3, is_capped: false }));
        }
        room.store.hold_reads(false);
        let (bytes, end, has_ended) = follows.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let expected = if is_end { (&b""[..], 0, true) } else { (&b"abc"[..], 3, false) };
        assert_eq!((&*bytes, end.next, has_ended), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_output_is_told_when_there_is_some_and_otherwise_waits_its_time() {
    let room = Room::new();
    room.queue(ANN).await;
    let delivery = room.take_one(Some(LEASE)).await;
    let (id, claim) = (delivery.task(), Some(delivery.claim()));
    let begun = Instant::now();
    let (bytes, ..) = room.dispatcher.output(id, 0, 9, begun + LEASE / 2).await.unwrap();
    assert!(bytes.is_empty() && begun.elapsed() == LEASE / 2);
    let dispatcher = room.dispatcher.clone();
    let mut follows = JoinSet::new();
    follows.spawn(async move { dispatcher.output(id, 0, 9, begun + 2 * LEASE).await });
    settle().await;
    let add = |agent, claim| room.dispatcher.add_output(agent, id, claim, 0, "abc".into());
    assert_eq!(add(BOB, None).await.unwrap(), None, "foreign");
    assert_eq!(add(ANN, Some(Claim(1))).await.unwrap(), None, "another claim");
    assert!(add(ANN, claim).await.unwrap().is_some());
    let (bytes, ..) = follows.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(&*bytes, b"abc");
    assert_eq!(begun.elapsed(), LEASE / 2);
    room.store.mode(Mode::Fail);
    assert!(add(ANN, claim).await.is_err());
    room.store.mode(Mode::Pass);
    room.result(id, claim).await.unwrap();
    assert_eq!(add(ANN, claim).await.unwrap(), None, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_woken_by_its_own_task_alone_and_by_the_removal_of_its_agent() {
    let room = Room::new();
    room.queue(ANN).await;
    let begun = Instant::now();
    let dispatcher = room.dispatcher.clone();
    let mut follows = JoinSet::new();
    follows.spawn(async move { dispatcher.output(TaskId(1), 0, 9, begun + LEASE).await });
    settle().await;
    room.store.wait_for_read(1);
    for _ in 0..10 {
        let other = room.queue(BOB).await;
        room.dispatcher.cancel(other.id, "no", false, None).await.unwrap();
        settle().await;
    }
    assert_eq!(room.store.read_count(), 1);
    room.dispatcher.forget(ANN).await.unwrap();
    let (.., has_ended) = follows.join_next().await.unwrap().unwrap().unwrap();
    assert!(has_ended && begun.elapsed() == Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_announced_when_it_is_stored() {
    let room = Room::new();
    let newest = room.dispatcher.newest_event();
    room.store.mode(Mode::Fail);
    assert!(room.dispatcher.log_event(ANN, "1".into()).await.is_err());
    assert_eq!(*newest.borrow(), EventId(0));
    room.store.mode(Mode::Hold);
    let dispatcher = room.dispatcher.clone();
    let mut events = JoinSet::new();
    events.spawn(async move { dispatcher.log_event(ANN, "2".into()).await });
    settle().await;
    assert!(events.try_join_next().is_none() && *newest.borrow() == EventId(0));
    room.store.release();
    let id = events.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(*newest.borrow(), id);
    let query = EventQuery { agent: Some(ANN), after: EventId(0), limit: 9, newest: true };
    let found = room.dispatcher.events(query).await.unwrap();
    assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), [id]);
    assert_eq!(*room.restart().dispatcher.newest_event().borrow(), id);
}
