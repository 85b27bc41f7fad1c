//! The ledger's rules, each with the times that a test gives it.

use super::*;

const AGENT: AgentId = AgentId(1);
const OTHER: AgentId = AgentId(2);
const LEASE: Duration = Duration::from_secs(60);

/// A ledger, and the time that its steps are given.
struct Desktop {
    ledger: Ledger,
    start: Instant,
}

impl Desktop {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { ledger: Ledger::new(settings, 1, 1), start: Instant::now() }
    }

    fn at(&self, secs: u64) -> Instant {
        self.start + Duration::from_secs(secs)
    }

    /// A task of `AGENT` on its way to the disk.
    fn send(&mut self, priority: i8, ttl: Option<u64>) -> TaskId {
        let id = self.ledger.number();
        let open = Open {
            agent: AGENT,
            priority,
            phase: Phase::Storing,
            is_ending: false,
            body: Some(Bytes::from_static(b"{}")),
            attempts: 0,
            attempts_max: 3,
            expires: ttl.map(|secs| self.at(secs)),
            taken_at: None,
            lease: None,
            waiters: Vec::new(),
            followers: None,
        };
        self.ledger.add(id, open);
        id
    }

    /// A task that is queued.
    fn queue(&mut self, priority: i8, ttl: Option<u64>) -> TaskId {
        let id = self.send(priority, ttl);
        assert!(self.ledger.stored(id).is_some());
        id
    }

    fn claim(&mut self, max: usize, lease: Option<Duration>, at: u64) -> Vec<Claimed> {
        let now = self.at(at);
        self.ledger.claim(AGENT, max, lease, now, at * 1000)
    }

    /// The one task that is next, and its claim.
    fn claim_one(&mut self, lease: Option<Duration>, at: u64) -> (TaskId, Claim) {
        let claimed = self.claim(1, lease, at);
        let first = claimed.first().expect("a task is queued");
        (first.task, first.claim)
    }

    fn claimed_ids(&mut self, at: u64) -> Vec<u64> {
        self.claim(100, None, at).iter().map(|claimed| claimed.task.0).collect()
    }

    fn result(&mut self, id: TaskId, claim: Option<Claim>, at: u64) -> Judgement {
        let now = self.at(at);
        self.ledger.begin_end(id, Some(AGENT), claim, now)
    }

    fn cancel(&mut self, id: TaskId) -> Judgement {
        self.ledger.begin_end(id, None, None, self.start)
    }

    fn due(&mut self, at: u64) -> Vec<Due> {
        let now = self.at(at);
        self.ledger.due(now, 100)
    }
}

#[test]
fn nothing_is_handed_out_before_it_is_stored() {
    let mut desk = Desktop::new();
    let id = desk.send(0, None);
    assert!(desk.claim(1, None, 0).is_empty());
    assert!(desk.ledger.stored(id).is_some());
    assert!(desk.ledger.stored(id).is_none(), "a task is stored once");
    assert_eq!(desk.claimed_ids(0), [1]);
    assert!(desk.claim(1, None, 0).is_empty(), "a task that is taken is not handed out again");
}

#[test]
fn higher_priority_goes_first_and_then_the_older() {
    let mut desk = Desktop::new();
    for priority in [0, 5, 0, -5, 5, 100] {
        desk.queue(priority, None);
    }
    assert_eq!(desk.claimed_ids(0), [6, 2, 5, 1, 3, 4]);
}

#[test]
fn no_more_are_handed_out_than_are_asked_for_and_only_to_their_agent() {
    let mut desk = Desktop::new();
    desk.queue(0, None);
    desk.queue(0, None);
    let now = desk.start;
    assert!(desk.ledger.claim(OTHER, 10, None, now, 0).is_empty());
    assert!(desk.claim(0, None, 0).is_empty());
    assert_eq!(desk.claim(1, None, 0).len(), 1);
    assert_eq!(desk.ledger.queued(AGENT), 1);
}

#[test]
fn what_is_put_back_has_its_old_place_and_was_no_attempt() {
    let mut desk = Desktop::new();
    for priority in [0, 1, 0] {
        desk.queue(priority, None);
    }
    let (first, _) = desk.claim_one(None, 0);
    let (second, claim) = desk.claim_one(None, 0);
    assert_eq!((first.0, second.0), (2, 1));
    assert!(desk.ledger.put_back(second, Claim(claim.0 + 9)).is_none(), "a claim of another");
    assert!(desk.ledger.put_back(TaskId(99), claim).is_none(), "no such task");
    assert!(desk.ledger.put_back(second, claim).is_some());
    assert!(desk.ledger.put_back(second, claim).is_none(), "only once");
    desk.queue(0, None);
    let again = desk.claim(100, None, 0);
    let ids: Vec<u64> = again.iter().map(|claimed| claimed.task.0).collect();
    assert_eq!(ids, [1, 3, 4], "before what was sent after it");
    assert_eq!(again[0].attempts, 1);
    assert!(again[0].claim > claim, "a claim is never used twice");
}

/// Which answer is given to a result, by what has happened to the task before.
#[test]
fn the_first_result_wins_and_others_are_late_foreign_or_unknown() {
    type Before = fn(&mut Desktop, TaskId) -> Option<Claim>;
    let check = |what: &str, before: Before, expected: Judgement| {
        let mut desk = Desktop::new();
        let id = desk.queue(0, None);
        let claim = before(&mut desk, id);
        assert_eq!(desk.result(id, claim, 30), expected, "{what}");
    };
    check("queued, no claim: it was put back, but had arrived", |_, _| None, Judgement::First);
    check("a claim that nobody holds", |_, _| Some(Claim(1)), Judgement::Late);
    let taken = |d: &mut Desktop, _| {
        d.claim_one(None, 0);
        None
    };
    check("taken", taken, Judgement::First);
    check("taken, its claim", |d, _| Some(d.claim_one(None, 0).1), Judgement::First);
    check("leased, its claim", |d, _| Some(d.claim_one(Some(LEASE), 0).1), Judgement::First);
    let over = |d: &mut Desktop, _| Some(d.claim_one(Some(Duration::from_secs(30)), 0).1);
    check("the lease is just over", over, Judgement::Late);
    let again = |d: &mut Desktop, _| {
        let (id, old) = d.claim_one(None, 0);
        d.ledger.put_back(id, old);
        d.claim_one(None, 0);
        Some(old)
    };
    check("handed out again since", again, Judgement::Late);
    let twice = |d: &mut Desktop, id| {
        assert_eq!(d.result(id, None, 0), Judgement::First);
        None
    };
    check("while another is being stored", twice, Judgement::Late);
    let cancelled = |d: &mut Desktop, id| {
        assert_eq!(d.cancel(id), Judgement::First);
        None
    };
    check("while it is being cancelled", cancelled, Judgement::Late);
    let ended = |d: &mut Desktop, id| {
        d.cancel(id);
        assert!(d.ledger.ended(id).is_some());
        None
    };
    check("ended", ended, Judgement::Unknown);

    let mut desk = Desktop::new();
    let (id, storing) = (desk.queue(0, None), desk.send(0, None));
    let now = desk.start;
    assert_eq!(desk.ledger.begin_end(id, Some(OTHER), None, now), Judgement::Unknown, "foreign");
    assert_eq!(desk.result(TaskId(99), None, 0), Judgement::Unknown);
    assert_eq!(desk.result(storing, None, 0), Judgement::Unknown, "it is not known to anybody yet");
    assert_eq!(desk.result(id, None, 0), Judgement::First, "the foreign one has changed nothing");
}

#[test]
fn what_is_being_ended_is_handed_out_to_nobody_and_comes_again_if_that_fails() {
    let mut desk = Desktop::new();
    let (queued, other) = (desk.queue(0, None), desk.queue(0, None));
    assert_eq!(desk.cancel(queued), Judgement::First);
    assert_eq!(desk.claimed_ids(0), [other.0]);
    assert!(desk.ledger.end_failed(queued).is_some(), "a bell must ring");
    assert_eq!(desk.claimed_ids(0), [queued.0]);

    let claim = desk.ledger.get(other).map(|open| open.phase);
    assert_eq!(desk.result(other, None, 0), Judgement::First);
    assert!(desk.ledger.end_failed(other).is_none(), "its agent has it still");
    assert_eq!(desk.ledger.get(other).map(|open| open.phase), claim);
    assert_eq!(desk.result(other, None, 0), Judgement::First, "the agent may try again");
}

#[test]
fn a_lease_that_runs_out_brings_the_task_back_until_it_is_dead() {
    let mut desk = Desktop::new();
    let id = desk.queue(0, None);
    for attempt in 1..=3_u32 {
        let from = u64::from(attempt) * 100;
        let claimed = desk.claim(1, Some(LEASE), from);
        assert_eq!(claimed[0].attempts, attempt);
        assert_eq!(desk.due(from + 59), []);
        let due = desk.due(from + 60);
        if attempt < 3 {
            assert_eq!(due, [Due::Ring(AGENT)]);
        } else {
            assert!(matches!(due[..], [Due::End(dead, Outcome::Dead, _)] if dead == id), "{due:?}");
        }
    }
}

#[test]
fn a_task_that_nobody_took_in_time_expires() {
    let mut desk = Desktop::new();
    let id = desk.queue(0, Some(10));
    assert_eq!(desk.due(9), []);
    assert!(desk.claim(1, None, 10).is_empty(), "it is not handed out in its last moment");
    let due = desk.due(10);
    assert!(matches!(due[..], [Due::End(it, Outcome::Expired, _)] if it == id), "{due:?}");
}

#[test]
fn a_task_that_was_taken_in_time_may_take_its_time() {
    let mut desk = Desktop::new();
    desk.queue(0, Some(10));
    let leased = desk.queue(1, Some(10));
    desk.claim_one(Some(LEASE), 9);
    desk.claim_one(None, 9);
    assert_eq!(desk.due(30), []);
    let due = desk.due(69);
    assert!(matches!(due[..], [Due::End(it, Outcome::Expired, _)] if it == leased), "{due:?}");
}

/// Each of these once left an expired task behind that was in no queue and never ended.
#[test]
fn a_task_whose_time_came_while_it_could_not_end_ends_later() {
    type Before = fn(&mut Desktop, TaskId);
    let check = |what: &str, before: Before| {
        let mut desk = Desktop::new();
        let id = desk.send(0, Some(10));
        before(&mut desk, id);
        assert!(desk.claim(1, None, 20).is_empty(), "{what}: it has expired");
        let due = desk.due(20);
        assert!(
            matches!(due[..], [Due::End(it, Outcome::Expired, _)] if it == id),
            "{what}: {due:?}"
        );
    };
    check("on its way to a slow disk", |desk, id| {
        assert_eq!(desk.due(15), []);
        desk.ledger.stored(id);
    });
    check("on its way to its agent", |desk, id| {
        desk.ledger.stored(id);
        let (_, claim) = desk.claim_one(None, 5);
        assert_eq!(desk.due(15), []);
        desk.ledger.put_back(id, claim);
    });
    check("its end could not be stored", |desk, id| {
        desk.ledger.stored(id);
        assert_eq!(desk.due(15).len(), 1);
        desk.cancel(id);
        desk.ledger.end_failed(id);
    });
}

#[test]
fn a_dead_task_whose_end_could_not_be_stored_is_ended_again() {
    let mut desk = Desktop::new();
    let id = desk.queue(0, None);
    for attempt in 0..3 {
        desk.claim_one(Some(LEASE), attempt * 100);
        assert_eq!(desk.due(attempt * 100 + 60).len(), 1);
    }
    desk.cancel(id);
    desk.ledger.end_failed(id);
    assert!(matches!(desk.due(300)[..], [Due::End(it, Outcome::Dead, _)] if it == id));
}

#[test]
fn a_heartbeat_makes_a_lease_longer_while_it_is_held() {
    let mut desk = Desktop::new();
    let id = desk.queue(0, None);
    let (_, claim) = desk.claim_one(Some(LEASE), 0);
    let extend = |desk: &mut Desktop, agent, claim, at| {
        let now = desk.at(at);
        desk.ledger.extend(id, agent, claim, LEASE, now)
    };
    assert!(!extend(&mut desk, OTHER, claim, 50), "another agent");
    assert!(!extend(&mut desk, AGENT, Claim(claim.0 + 1), 50), "another claim");
    assert!(extend(&mut desk, AGENT, claim, 50));
    assert_eq!(desk.due(60), [], "the old end no longer counts");
    assert_eq!(desk.result(id, Some(claim), 109), Judgement::First);
    assert!(!extend(&mut desk, AGENT, claim, 109), "it is being ended");
    desk.ledger.end_failed(id);
    assert!(!extend(&mut desk, AGENT, claim, 110), "it came too late");
    assert_eq!(desk.due(110), [Due::Ring(AGENT)]);

    let (_, claim) = desk.claim_one(None, 120);
    assert!(!extend(&mut desk, AGENT, claim, 121), "there is no lease");
}

#[test]
fn an_unsure_task_is_handed_out_when_its_agent_asks_for_more() {
    let mut desk = Desktop::new();
    let id = desk.send(0, None);
    let mut open = desk.ledger.ended(id).unwrap();
    open.phase = Phase::Unsure;
    open.attempts = 1;
    desk.ledger.add(id, open);
    assert_eq!(desk.ledger.queued(AGENT), 0);
    // An end that could not be stored, with a poll in between, leaves it as it was.
    desk.cancel(id);
    assert!(desk.claim(1, None, 0).is_empty());
    assert!(desk.ledger.end_failed(id).is_none());
    let claimed = desk.claim(1, None, 0);
    assert_eq!((claimed[0].task, claimed[0].attempts), (id, 2));
}

#[test]
fn a_result_for_an_unsure_task_ends_it() {
    let mut desk = Desktop::new();
    let id = desk.send(0, None);
    let mut open = desk.ledger.ended(id).unwrap();
    open.phase = Phase::Unsure;
    desk.ledger.add(id, open);
    assert_eq!(desk.result(id, None, 0), Judgement::First);
    assert!(desk.claim(1, None, 0).is_empty());
}

#[test]
fn a_queue_has_room_again_when_a_task_is_taken() {
    let mut desk = Desktop::with(Settings { queue_max: 2, ..Settings::default() });
    desk.queue(0, None);
    assert!(desk.ledger.has_room(AGENT));
    desk.queue(0, None);
    assert!(!desk.ledger.has_room(AGENT));
    assert!(desk.ledger.has_room(OTHER));
    desk.claim_one(None, 0);
    assert!(desk.ledger.has_room(AGENT));
}

#[test]
fn an_agent_is_online_while_it_polls_and_a_while_after() {
    let mut desk = Desktop::new();
    let (t0, t100) = (desk.at(0), desk.at(100));
    assert!(!desk.ledger.is_online(AGENT, t0));
    desk.ledger.polls(AGENT, true, t0);
    desk.ledger.polls(AGENT, true, t0);
    desk.ledger.polls(AGENT, false, t0);
    let still = desk.ledger.is_online(AGENT, t100);
    assert!(still, "one of two polls is left");
    desk.ledger.polls(AGENT, false, t100);
    let online = |secs: u64| desk.ledger.is_online(AGENT, t0 + Duration::from_secs(secs));
    assert!(online(127) && !online(128));
}

#[test]
fn a_removed_agent_leaves_nothing_behind() {
    let mut desk = Desktop::new();
    let (queued, taken) = (desk.queue(0, Some(10)), desk.queue(1, None));
    desk.claim_one(Some(LEASE), 0);
    let now = desk.start;
    desk.ledger.polls(AGENT, true, now);
    let gone: BTreeSet<TaskId> = desk.ledger.forget(AGENT).into_iter().map(|it| it.0).collect();
    assert_eq!(gone, BTreeSet::from([queued, taken]));
    // Its poll ends after it.
    desk.ledger.polls(AGENT, false, now);
    assert!(desk.ledger.desks.is_empty() && desk.ledger.tasks.is_empty());
    assert!(desk.ledger.deadlines.is_empty());
    assert_eq!((desk.ledger.bodies, desk.due(1000)), (0, Vec::new()));
    assert!(!desk.ledger.is_online(AGENT, now));
}

#[test]
fn long_bodies_and_too_many_are_not_kept_and_the_count_returns_to_nothing() {
    let mut desk = Desktop::new();
    let mut add = |length: usize| {
        let id = desk.send(0, None);
        let mut open = desk.ledger.ended(id).unwrap();
        open.body = Some(vec![0; length].into());
        desk.ledger.add(id, open);
        (id, desk.ledger.get(id).unwrap().body.is_some())
    };
    let mut ids = vec![add(BODY_MAX + 1)];
    assert!(!ids[0].1);
    ids.extend((0..BODIES_MAX / BODY_MAX).map(|_| add(BODY_MAX)));
    assert!(ids[1..].iter().all(|(_, is_kept)| *is_kept));
    ids.push(add(1));
    assert!(!ids.last().unwrap().1);
    for (id, _) in ids {
        desk.ledger.ended(id);
    }
    assert_eq!(desk.ledger.bodies, 0);
}

#[test]
fn a_body_keeps_no_buffer_of_which_it_is_a_part() {
    let mut desktop = Desktop::new();
    let buffer = Bytes::from(vec![b'1'; 1 << 20]);
    let id = desktop.queue(0, None);
    let (agent, phase) = (AGENT, Phase::Queued);
    let open = desktop.ledger.ended(id).unwrap();
    let open = Open { agent, phase, body: Some(buffer.slice(..2)), ..open };
    desktop.ledger.add(id, open);
    assert_eq!(desktop.claim(1, None, 0)[0].body.as_deref(), Some(&b"11"[..]));
    assert!(buffer.is_unique());
}

#[test]
fn deadlines_of_what_has_ended_do_not_pile_up() {
    let mut desk = Desktop::new();
    let kept = desk.queue(-1, Some(1_000_000));
    let (_, claim) = desk.claim_one(Some(LEASE), 0);
    for _ in 0..20_000 {
        let id = desk.queue(0, Some(2_000_000));
        desk.cancel(id);
        desk.ledger.ended(id);
        let now = desk.start;
        assert!(desk.ledger.extend(kept, AGENT, claim, LEASE, now));
    }
    assert_eq!(desk.ledger.deadlines.len(), 2);
    assert_eq!(desk.due(60), [Due::Ring(AGENT)], "what is open is still watched");
    assert!(matches!(desk.due(1_000_000)[..], [Due::End(_, Outcome::Expired, _)]));
}

#[test]
fn one_look_at_the_time_finds_no_more_than_is_asked_for() {
    let mut desk = Desktop::new();
    for _ in 0..10 {
        desk.queue(0, Some(1));
    }
    let now = desk.at(1);
    let found: Vec<usize> = (0..4).map(|_| desk.ledger.due(now, 4).len()).collect();
    assert_eq!(found, [4, 4, 2, 0]);
}

#[test]
fn only_what_was_handed_out_without_a_lease_long_ago_is_abandoned() {
    let mut desk = Desktop::new();
    let old = desk.queue(3, None);
    desk.queue(2, None);
    desk.queue(1, None);
    desk.queue(0, None);
    desk.claim_one(None, 10);
    desk.claim_one(Some(LEASE), 10);
    desk.claim_one(None, 20);
    assert_eq!(desk.ledger.abandoned(10_001), [old]);
    desk.cancel(old);
    assert_eq!(desk.ledger.abandoned(10_001), [], "it is being ended");
}

#[test]
fn claims_of_another_run_are_other_ones() {
    let claim = |run| {
        let mut desk =
            Desktop { ledger: Ledger::new(Settings::default(), 1, run), start: Instant::now() };
        desk.queue(0, None);
        desk.claim_one(None, 0).1
    };
    assert!(claim(2) > Claim(claim(1).0 + 1_000_000_000));
}

#[test]
fn room_for_many_tasks_is_given_back_when_they_have_ended() {
    let mut desk = Desktop::with(Settings { queue_max: 100_000, ..Settings::default() });
    let ids: Vec<TaskId> = (0..100_000).map(|_| desk.queue(0, None)).collect();
    let (last, others) = ids.split_last().unwrap();
    for id in others {
        desk.ledger.begin_end(*id, None, None, desk.start);
        assert!(desk.ledger.ended(*id).is_some());
    }
    assert!(desk.ledger.tasks.capacity() <= 2 * ROOM_KEPT, "{}", desk.ledger.tasks.capacity());
    assert_eq!(desk.claim(9, None, 0).iter().map(|it| it.task).collect::<Vec<_>>(), [*last]);
}
