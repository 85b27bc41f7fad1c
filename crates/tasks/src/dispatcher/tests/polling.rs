//! What agents are handed, and what comes back.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;

/// Polls a future once.
fn look<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(found) => Some(found),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_woken_before_the_task_is_stored() {
    let room = Room::new();
    let mut polls = JoinSet::new();
    room.park(&mut polls, ANN);
    room.store.mode(Mode::Hold);
    let sent = room.send(new_task(ANN));
    settle().await;
    assert!(polls.try_join_next().is_none(), "it is not on the disk");
    assert!(room.take(ANN, 9, None).await.is_empty());
    room.store.release();
    assert_eq!(polls.join_next().await.unwrap().unwrap(), [sent.id.0]);
    assert!(sent.stored.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_parked_poll_is_answered_at_once_and_one_without_a_task_at_its_deadline() {
    let room = Room::new();
    let begun = Instant::now();
    let mut polls = JoinSet::new();
    room.park(&mut polls, ANN);
    room.park(&mut polls, BOB);
    settle().await;
    room.queue(ANN).await;
    assert_eq!(polls.join_next().await.unwrap().unwrap(), [1]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(polls.join_next().await.unwrap().unwrap(), [0; 0]);
    assert_eq!(begun.elapsed(), LEASE);
}

/// The ring and the look come from two threads here, so that they meet at every point in time.
#[test]
fn a_ring_between_looking_and_waiting_is_not_lost() {
    const ROUNDS: u64 = 3000;
    let room = Room::new();
    let dispatcher = room.dispatcher.clone();
    let (ask, asked) = std::sync::mpsc::sync_channel(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for () in asked {
                dispatcher.enqueue(new_task(ANN)).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for round in 1..=ROUNDS {
                ask.send(()).unwrap();
                let until = Instant::now() + Duration::from_secs(30);
                let mut found = room.dispatcher.poll(ANN, 1, None, until).await.unwrap();
                assert_eq!(ids(&found), [round]);
                found[0].sending();
                found[0].sent();
            }
        });
        drop(ask);
    });
}

#[tokio::test(start_paused = true)]
async fn fifty_polls_of_one_agent_get_one_of_fifty_tasks_each() {
    let room = Room::new();
    let begun = Instant::now();
    let mut polls = JoinSet::new();
    (0..50).for_each(|_| room.park(&mut polls, ANN));
    settle().await;
    for _ in 0..50 {
        room.send(new_task(ANN));
    }
    let mut found = polls.join_all().await.concat();
    found.sort_unstable();
    assert_eq!(found, (1..=50).collect::<Vec<_>>());
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited for the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_dropped_when_it_was_woken_wakes_the_next() {
    let room = Room::new();
    let until = Instant::now() + LEASE;
    let mut first = Box::pin(room.dispatcher.poll(ANN, 1, None, until));
    let mut second = pin!(room.dispatcher.poll(ANN, 1, None, until));
    assert!(look(first.as_mut()).is_none() && look(second.as_mut()).is_none());
    room.send(new_task(ANN));
    drop(first);
    let found = look(second.as_mut()).expect("it was woken").unwrap();
    assert_eq!(ids(&found), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_dropped_at_the_moment_of_its_claim_gives_all_back() {
    let room = Room::new();
    // The second body is read while the first task is claimed already.
    let first = room.queue(ANN).await;
    let mut second = room.send(long_task(ANN));
    (&mut second.stored).await.unwrap().unwrap();
    room.store.hold_reads(true);
    let mut poll = Box::pin(room.dispatcher.poll(ANN, 2, None, Instant::now() + LEASE));
    assert!(look(poll.as_mut()).is_none());
    room.store.wait_for_reader();
    assert!(room.take(ANN, 9, None).await.is_empty(), "both are claimed");
    drop(poll);
    room.store.hold_reads(false);
    let found = room.take(ANN, 9, None).await;
    assert_eq!(ids(&found), [first.id.0, second.id.0]);
    assert_eq!((&**found[0].body(), found[1].body().len()), (&b"{}"[..], 100_000));
    assert_eq!(room.view(first.id).await.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_gives_all_back() {
    let room = Room::new();
    room.queue(ANN).await;
    let long = room.send(long_task(ANN));
    room.store.fail_reads(true);
    let refused = room.dispatcher.poll(ANN, 2, None, Instant::now()).await;
    assert!(matches!(refused, Err(PollError::Store(StoreError::Full))));
    room.store.fail_reads(false);
    assert_eq!(ids(&room.take(ANN, 9, None).await), [1, long.id.0]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_forgotten_while_it_was_read_is_not_handed_out() {
    let room = Room::new();
    room.send(long_task(ANN)).stored.await.unwrap().unwrap();
    // The row is gone, but the ledger does not know yet.
    let (tell, told) = confirmed();
    crate::store::TaskStore::forget(&*room.store, ANN, Box::new(tell));
    told.await.unwrap().unwrap();
    assert!(room.take(ANN, 9, None).await.is_empty(), "there is nothing to be done");
}

/// What becomes of a task by what is done with its delivery: whether it is queued again, and how a new start sees it.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_did_not_arrive_goes_back_to_its_place() {
    type With = fn(Delivery);
    async fn check(what: &str, with: With, comes_again: bool) {
        let room = Room::new();
        room.queue(ANN).await;
        room.queue(ANN).await;
        with(room.take(ANN, 1, None).await.remove(0));
        for room in [&room.restart(), &room] {
            let expected = if comes_again { State::Queued } else { State::Taken };
            assert_eq!(room.state(TaskId(1)).await, expected, "{what}");
            let found = room.take(ANN, 1, None).await;
            let first = if comes_again { 1 } else { 2 };
            assert_eq!(ids(&found), [first], "{what}");
            assert_eq!(room.view(TaskId(first)).await.attempts, 1, "{what}");
        }
    }
    check("dropped before it is written", drop, true).await;
    check("lost before it is written", Delivery::lost, true).await;
    let half = |mut delivery: Delivery| delivery.sending();
    check("dropped while it is written", half, true).await;
    let sent = |mut delivery: Delivery| {
        delivery.sending();
        delivery.sent();
        assert!(delivery.is_sent());
    };
    check("dropped when it was written", sent, false).await;
    let reset = |mut delivery: Delivery| {
        delivery.sending();
        delivery.sent();
        delivery.lost();
    };
    check("reset after it was written", reset, true).await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_back_wakes_a_parked_poll() {
    let room = Room::new();
    room.queue(ANN).await;
    let delivery = room.take(ANN, 1, None).await.remove(0);
    let mut polls = JoinSet::new();
    room.park(&mut polls, ANN);
    settle().await;
    drop(delivery);
    assert_eq!(polls.join_next().await.unwrap().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_lost_after_its_result_or_its_next_handing_out_changes_nothing() {
    let room = Room::new();
    room.queue(ANN).await;
    let delivery = room.take_one(None).await;
    assert_eq!(room.result(TaskId(1), None).await.unwrap(), Judgement::First);
    delivery.lost();
    assert!(room.take(ANN, 9, None).await.is_empty());
    assert_eq!(room.state(TaskId(1)).await, State::Ended(Outcome::Done));
}

#[tokio::test(start_paused = true)]
async fn a_removed_agent_ends_its_polls_and_tells_who_waits() {
    let room = Room::new();
    let sent = room.queue(ANN).await;
    let other = room.queue(BOB).await;
    let delivery = room.take_one(None).await;
    let mut poll = pin!(room.dispatcher.poll(ANN, 1, None, Instant::now() + LEASE));
    assert!(look(poll.as_mut()).is_none());
    room.dispatcher.forget(ANN).await.unwrap();
    assert!(matches!(look(poll.as_mut()), Some(Err(PollError::Gone))));
    assert!(sent.ended.await.is_err());
    delivery.lost();
    assert!(room.dispatcher.task(sent.id).await.unwrap().is_none());
    assert!(!room.dispatcher.is_online(ANN));
    assert_eq!(ids(&room.take(BOB, 9, None).await), [other.id.0], "others are left alone");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_numbers_are_not_used_twice() {
    let room = Room::with(Settings { queue_max: 1, ..Settings::default() });
    room.store.mode(Mode::Fail);
    let failed = room.send(new_task(ANN));
    assert!(matches!(failed.stored.await.unwrap(), Err(StoreError::Full)));
    assert!(failed.ended.await.is_err());
    assert!(room.take(ANN, 9, None).await.is_empty(), "what is not stored is not handed out");
    room.store.mode(Mode::Pass);
    assert!(room.queue(ANN).await.id > failed.id);
    assert!(matches!(room.dispatcher.enqueue(new_task(ANN)), Err(EnqueueError::QueueFull)));
    assert!(room.dispatcher.enqueue(new_task(BOB)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_new_start_goes_on_where_the_last_one_ended() {
    let room = Room::new();
    for _ in 0..5 {
        room.queue(ANN).await;
    }
    let sent = room.take_one(None).await;
    let mut sending = room.take(ANN, 1, None).await.remove(0);
    sending.sending();
    let leased = room.take_one(Some(LEASE)).await;
    room.take_one(None).await;
    room.result(TaskId(4), None).await.unwrap();

    let next = room.restart();
    assert_eq!(next.state(sent.task()).await, State::Taken);
    assert_eq!(next.state(leased.task()).await, State::Taken);
    assert_eq!(next.state(TaskId(4)).await, State::Ended(Outcome::Done));
    let again = next.take(ANN, 9, None).await;
    assert_eq!(ids(&again), [2, 5], "nobody knows whether the second arrived");
    assert_eq!(next.view(TaskId(2)).await.attempts, 2);
    assert!(again.iter().all(|delivery| delivery.claim() > leased.claim()));
    let mut judged = Vec::new();
    for claim in [leased.claim(), again[0].claim()] {
        judged.push(next.result(leased.task(), Some(claim)).await.unwrap());
        judged.push(next.result(sent.task(), None).await.unwrap());
    }
    assert_eq!(judged[..2], [Judgement::First, Judgement::First]);
    assert_eq!(judged[2..], [Judgement::Late, Judgement::Late]);
    assert!(next.queue(ANN).await.id > TaskId(5));
}

#[tokio::test(start_paused = true)]
async fn a_poll_takes_no_more_than_fits_into_an_answer() {
    let room = Room::new();
    for mib in [6, 6, 6, 20, 1] {
        let body = vec![b'1'; mib << 20].into();
        let sent = room.send(NewTask { body, ..new_task(ANN) });
        sent.stored.await.unwrap().unwrap();
    }
    let mut found = Vec::new();
    loop {
        let mut taken = room.take(ANN, 9, Some(LEASE)).await;
        if taken.is_empty() {
            break;
        }
        taken.iter_mut().for_each(Delivery::sending);
        taken.iter_mut().for_each(Delivery::sent);
        found.push(ids(&taken));
    }
    assert_eq!(found, [vec![1, 2], vec![3], vec![4], vec![5]]);
    assert_eq!(room.view(TaskId(5)).await.attempts, 1, "what did not fit was no attempt");
}
