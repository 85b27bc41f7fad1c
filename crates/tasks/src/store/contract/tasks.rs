//! What every store must do with tasks, their ends, results, output and handings-out.

use bytes::Bytes;

use super::*;
use crate::store::{ClaimNote, LATE_MAX, Late, OutputEnd, Progress, Stored};
use crate::task::{Claim, State, now_ms};

pub(super) const CHECKS: &[Check] = &[
    ("a task is found as it was sent and is open until it ends, once", found),
    ("the last that was noted of a handing-out is found again", noted),
    ("late results are kept in order, but not without end", late),
    ("output grows at its end alone, and not without end", output),
    ("an agent that is forgotten leaves nothing, whatever is on its way", forgotten),
    ("no number of a task is given twice", numbers_are_new),
    ("pages of tasks leave nothing out and show nothing twice", paged),
    ("many tasks of many agents are found by agent while the house is put in order", many),
    ("old tasks are dropped with all that belongs to them, others are not", dropped),
];

fn page_ids(store: &SharedStore, query: TaskQuery) -> Vec<u64> {
    store.tasks(&query).unwrap().tasks.iter().map(|stored| stored.task.id.0).collect()
}

fn found(store: &mut Restarting) {
    let full = Task {
        priority: -100,
        attempts_max: u32::MAX,
        expires_at: Some(1 << 50),
        body: Bytes::from_static(b"{\"type\":\"x\",\"bytes\":\"\xc3\xa9\"}"),
        by: "\u{1f511} admin".into(),
        ..task(3, BOB)
    };
    store.add_task(&full);
    store.add_task(&task(2, ANN));
    store.add_task(&task(4, ANN));
    let ends = [
        Ending { reason: Some("why".into()), result: None, ..ending(2, Outcome::Cancelled, 9) },
        Ending { taken_at: None, attempts: 0, ..ending(4, Outcome::Done, 9) },
    ];
    for end in &ends {
        store.end_task(end);
    }
    let again = store.told(|store, then| store.end_task(ending(4, Outcome::Dead, 10), None, then));
    assert!(again.is_err(), "a task ends once");
    for run in 2..4 {
        let stored = |id| store.store().task(TaskId(id)).unwrap();
        assert_eq!(stored(3), Some(Stored { task: full.clone(), ending: None }));
        assert_eq!(stored(2), Some(Stored { task: task(2, ANN), ending: Some(ends[0].clone()) }));
        assert_eq!(stored(4).unwrap().ending, Some(ends[1].clone()));
        assert_eq!((stored(1), stored(u64::MAX)), (None, None));
        let loaded = store.restart();
        assert_eq!(loaded.open, [(full.clone(), None)]);
        assert_eq!((loaded.next_task, loaded.run), (5, run));
    }
}

fn note(id: u64, claim: u64, progress: Progress) -> ClaimNote {
    let until_ms = claim.is_multiple_of(2).then_some(99);
    ClaimNote {
        task: TaskId(id),
        claim: Claim(claim),
        progress,
        attempts: 3,
        until_ms,
        taken_at: 7,
    }
}

fn noted(store: &mut Restarting) {
    use Progress::{Returned, Sending, Sent};
    type Notes = &'static [(u64, Progress)];
    // What is noted, and which of it is to be found.
    let cases: [(Notes, Option<usize>); 9] = [
        (&[], None),
        (&[(1, Sending)], Some(0)),
        (&[(2, Sending), (2, Sent)], Some(1)),
        (&[(2, Sending), (2, Returned)], Some(1)),
        (&[(1, Sending), (1, Sent), (1, Returned)], Some(2)),
        (&[(1, Sending), (1, Returned), (2, Sending)], Some(2)),
        // News of an earlier handing-out that the next one has overtaken.
        (&[(1, Sending), (2, Sending), (1, Sent)], Some(1)),
        (&[(1, Sending), (2, Sending), (2, Sent), (1, Returned)], Some(2)),
        // Nothing was ever handed out by these.
        (&[(1, Sent)], None),
    ];
    for (at, (notes, _)) in cases.iter().enumerate() {
        let id = at as u64 + 1;
        store.add_task(&task(id, ANN));
        for (claim, progress) in *notes {
            store.store().note_claim(note(id, *claim, *progress));
        }
    }
    let ended = cases.len() as u64 + 1;
    store.add_task(&task(ended, ANN));
    store.store().note_claim(note(ended, 1, Sending));
    store.end_task(&ending(ended, Outcome::Done, 9));
    store.store().note_claim(note(ended, 1, Sent));
    for _ in 0..3 {
        let found: Vec<_> = store.restart().open.into_iter().map(|(_, note)| note).collect();
        let expected: Vec<_> = (1..)
            .zip(&cases)
            .map(|(id, (notes, last))| last.map(|at| note(id, notes[at].0, notes[at].1)))
            .collect();
        assert_eq!(found, expected);
    }
}

fn late(store: &mut Restarting) {
    store.add_task(&task(1, ANN));
    let result = |n: usize| Late {
        task: TaskId(1),
        claim: n.is_multiple_of(2).then_some(Claim(5)),
        at: 9,
        result: n.to_string().into(),
    };
    for n in 0..LATE_MAX + 3 {
        store.told(|store, then| store.add_late(result(n), then)).unwrap();
    }
    store.restart();
    let expected: Vec<_> = (0..LATE_MAX).map(result).collect();
    assert_eq!(store.store().late(TaskId(1)).unwrap(), expected);
    assert_eq!(store.store().late(TaskId(2)).unwrap(), []);
}

fn output(store: &mut Restarting) {
    const MAX: u64 = 10;
    store.add_task(&task(1, ANN));
    let add = |offset, bytes: &'static str, next, is_capped| {
        let add = |store: &SharedStore, then: Then<OutputEnd>| {
            store.add_output(TaskId(1), offset, bytes.into(), MAX, then);
        };
        let end = store.told(add).unwrap();
        assert_eq!(end, OutputEnd { next, is_capped }, "{bytes} at {offset}");
    };
    add(1, "hole", 0, false);
    add(u64::MAX, "far away", 0, false);
    add(0, "", 0, false);
    add(0, "abc", 3, false);
    add(0, "abc", 3, false);
    add(1, "bcde", 5, false);
    add(6, "hole", 5, false);
    add(5, "fgh", 8, false);
    add(7, "XYZ", 10, false);
    add(10, "more", 10, true);
    add(9, "ZZ", 10, true);
    add(10, "", 10, false);
    store.restart();
    let check = |offset, max, expected: &str| {
        let (bytes, end) = store.store().output(TaskId(1), offset, max).unwrap();
        assert_eq!((&*bytes, end.next), (expected.as_bytes(), 10), "{max} from {offset}");
    };
    check(0, 100, "abcdefghYZ");
    check(0, 4, "abcd");
    check(4, 4, "efgh");
    check(9, 4, "Z");
    check(3, 0, "");
    for beyond in [10, 11, u64::MAX] {
        check(beyond, 4, "");
    }
    let (bytes, end) = store.store().output(TaskId(2), 0, 4).unwrap();
    assert_eq!((bytes.len(), end.next), (0, 0));
}

fn forgotten(store: &mut Restarting) {
    let piece = |store: &SharedStore, id, then: Then<OutputEnd>| {
        store.add_output(TaskId(id), 0, "out".into(), 100, then);
    };
    let late = |id| Late { task: TaskId(id), claim: None, at: 1, result: "1".into() };
    for (id, agent) in [(1, ANN), (2, BOB)] {
        store.add_task(&task(id, agent));
        store.add_event(agent, "1");
        store.told(|store, then| piece(store, id, then)).unwrap();
        store.told(|store, then| store.add_late(late(id), then)).unwrap();
        store.store().note_claim(note(id, 1, Progress::Sending));
    }
    assert_eq!(store.store().agents().unwrap(), [ANN, BOB]);
    // Nobody waits for these, so they may be written together with the forgetting.
    for id in 10..300 {
        store.store().add_task(task(id, ANN), None, Box::new(|_| {}));
        store.store().add_event(ANN, 1, "2".into(), Box::new(|_| {}));
    }
    store.forget(ANN);
    let _ = store.told(|store, then| store.end_task(ending(1, Outcome::Done, 5), None, then));
    let _ = store.told(|store, then| store.add_late(late(1), then));
    let _ = store.told(|store, then| piece(store, 1, then));
    for _ in 0..2 {
        let it = store.store();
        assert_eq!(it.agents().unwrap(), [BOB]);
        assert_eq!(page_ids(it, all_tasks(None)), [2]);
        assert_eq!(page_ids(it, all_tasks(Some(ANN))), [0; 0]);
        assert_eq!(it.events(&all_events(None)).unwrap().len(), 1);
        assert_eq!(it.events(&all_events(Some(ANN))).unwrap(), []);
        assert_eq!(it.task(TaskId(1)).unwrap(), None);
        assert_eq!((it.late(TaskId(1)).unwrap().len(), it.late(TaskId(2)).unwrap().len()), (0, 1));
        let length = |id| it.output(TaskId(id), 0, 9).unwrap().0.len();
        assert_eq!((length(1), length(2)), (0, 3));
        let open: Vec<_> = store.restart().open.into_iter().map(|(task, _)| task.id.0).collect();
        assert_eq!(open, [2]);
    }
}

fn numbers_are_new(store: &mut Restarting) {
    store.add_task(&task(1, ANN));
    store.add_task(&task(7, BOB));
    store.forget(BOB);
    assert_eq!(store.restart().next_task, 8);
    store.add_task(&task(8, ANN));
    store.end_task(&ending(8, Outcome::Done, 5));
    let settings = Settings { history: Some(Duration::from_secs(1)), ..Settings::default() };
    store.keep_house_until(&settings, |store| store.task(TaskId(8)).unwrap().is_none());
    assert_eq!(store.restart().next_task, 9);
}

/// Every third task is Bob's, every second has ended, every tenth of those was cancelled.
fn fill(store: &Restarting, count: u64, ended_at: u64) {
    let told = |outcome: Result<(), StoreError>| outcome.unwrap();
    for id in 1..=count {
        let agent = if id.is_multiple_of(3) { BOB } else { ANN };
        store.store().add_task(task(id, agent), None, Box::new(told));
        if id.is_multiple_of(2) {
            let outcome = if id.is_multiple_of(20) { Outcome::Cancelled } else { Outcome::Done };
            store.store().end_task(ending(id, outcome, ended_at), None, Box::new(told));
        }
    }
    store.add_event(ANN, "all has been stored by now");
}

/// What page after page shows is what there is.
fn check_pages(store: &SharedStore, count: u64, limit: usize) {
    for agent in [None, Some(ANN), Some(BOB), Some(AgentId(9))] {
        for state in [None, Some(State::Queued), Some(State::Ended(Outcome::Cancelled))] {
            let expected: Vec<u64> = (1..=count)
                .rev()
                .filter(|id| match agent {
                    Some(BOB) => id.is_multiple_of(3),
                    Some(ANN) => !id.is_multiple_of(3),
                    other => other.is_none(),
                })
                .filter(|id| match state {
                    Some(State::Queued) => !id.is_multiple_of(2),
                    Some(_) => id.is_multiple_of(20),
                    None => true,
                })
                .collect();
            let mut query = TaskQuery { limit, ..all_tasks(agent) }.in_state(state);
            let mut shown = Vec::new();
            loop {
                let page = store.tasks(&query).unwrap();
                assert!(page.tasks.len() <= limit);
                shown.extend(page.tasks.iter().map(|stored| stored.task.id.0));
                let Some(next) = page.next else { break };
                assert!(next < query.before, "pages go on");
                query.before = next;
            }
            assert_eq!(shown, expected, "{agent:?} {state:?}");
        }
    }
}

fn paged(store: &mut Restarting) {
    fill(store, 250, 5);
    for limit in [1, 7, 250, 1000] {
        check_pages(store.store(), 250, limit);
    }
    store.restart();
    check_pages(store.store(), 250, 7);
}

fn many(store: &mut Restarting) {
    const COUNT: u64 = 21_000;
    let settings = Settings { history: None, ..Settings::default() };
    fill(store, COUNT, 5);
    for _ in 0..2 {
        store.store().keep_house(&settings);
        check_pages(store.store(), COUNT, 1000);
    }
    let open = store.restart().open;
    assert_eq!(open.len() as u64, COUNT / 2);
    assert!(open.is_sorted_by(|(one, _), (next, _)| one.id < next.id));
    check_pages(store.store(), COUNT, 1000);
    assert_eq!(store.store().agents().unwrap(), [ANN, BOB]);
}

fn dropped(store: &mut Restarting) {
    let settings = Settings { history: Some(Duration::from_secs(3600)), ..Settings::default() };
    fill(store, 500, 5);
    for (id, ended_at) in [(501, now_ms()), (502, 5)] {
        store.add_task(&task(id, ANN));
        let add = |store: &SharedStore, then: Then<OutputEnd>| {
            store.add_output(TaskId(id), 0, "out".into(), 100, then);
        };
        store.told(add).unwrap();
        let late = Late { task: TaskId(id), claim: None, at: 1, result: "1".into() };
        store.told(|store, then| store.add_late(late, then)).unwrap();
        store.end_task(&ending(id, Outcome::Done, ended_at));
    }
    store.keep_house_until(&settings, |store| store.task(TaskId(502)).unwrap().is_none());
    for _ in 0..2 {
        let kept: Vec<u64> = (1..=501).rev().filter(|id: &u64| !id.is_multiple_of(2)).collect();
        assert_eq!(page_ids(store.store(), all_tasks(None)), kept);
        let left = |id| {
            let (bytes, _) = store.store().output(TaskId(id), 0, 10).unwrap();
            (bytes.len(), store.store().late(TaskId(id)).unwrap().len())
        };
        assert_eq!((left(501), left(502)), ((3, 1), (0, 0)));
        let loaded = store.restart();
        assert_eq!((loaded.open.len(), loaded.next_task), (250, 503));
    }
}
