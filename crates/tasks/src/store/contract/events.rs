//! What every store must do with events.

use std::sync::{Arc, Mutex};

use super::*;
use crate::store::Event;

pub(super) const CHECKS: &[Check] = &[
    ("an event is found as it came, by whose it is and what was seen before", found),
    ("events of many threads are told and found in the order of their numbers", in_order),
    ("of each agent the newest are kept, and that others were dropped is known", trimmed),
    ("no number of an event is given twice", numbers_are_new),
];

fn ids(store: &SharedStore, query: EventQuery) -> Vec<u64> {
    store.events(&query).unwrap().into_iter().map(|event| event.id.0).collect()
}

fn found(store: &mut Restarting) {
    let written = [(ANN, "1"), (BOB, "{\"a\": 2}"), (ANN, "null"), (ANN, "[]")]
        .map(|(agent, body)| (store.add_event(agent, body), agent, body));
    let all: Vec<Event> = written
        .iter()
        .map(|(id, agent, body)| Event { id: *id, agent: *agent, at: 5, body: (*body).into() })
        .collect();
    let numbers = written.map(|(id, ..)| id.0);
    let [one, two, three, four] = numbers;
    for _ in 0..2 {
        assert_eq!(store.store().events(&all_events(None)).unwrap(), all);
        let check = |agent, after, limit, newest, expected: &[u64]| {
            let query = EventQuery { agent, after: EventId(after), limit, newest };
            assert_eq!(ids(store.store(), query), expected, "{query:?}");
        };
        for newest in [false, true] {
            check(None, 0, 10, newest, &numbers);
            check(None, one, 10, newest, &[two, three, four]);
            check(Some(ANN), 0, 10, newest, &[one, three, four]);
            check(Some(ANN), two, 10, newest, &[three, four]);
            check(Some(BOB), two, 10, newest, &[]);
            check(Some(AgentId(9)), 0, 10, newest, &[]);
            check(None, u64::MAX, 10, newest, &[]);
        }
        check(None, 0, 2, false, &[one, two]);
        check(None, 0, 2, true, &[three, four]);
        check(Some(ANN), 0, 2, false, &[one, three]);
        check(Some(ANN), 0, 2, true, &[three, four]);
        assert_eq!(store.store().dropped(None, EventId(0)).unwrap(), []);
        assert_eq!(store.restart().last_event.0, four);
    }
}

fn in_order(store: &mut Restarting) {
    const THREADS: i64 = 8;
    const EACH: usize = 200;
    let told: Arc<Mutex<Vec<EventId>>> = Arc::default();
    std::thread::scope(|scope| {
        for agent in 1..=THREADS {
            let (store, told) = (store.store(), &told);
            scope.spawn(move || {
                for n in 0..EACH {
                    let told = Arc::clone(told);
                    let then = Box::new(move |id: Result<EventId, StoreError>| {
                        told.lock().unwrap().push(id.unwrap());
                    });
                    store.add_event(AgentId(agent), 5, n.to_string().into(), then);
                }
            });
        }
    });
    store.add_event(AgentId(THREADS + 1), "last");
    let told = told.lock().unwrap();
    assert_eq!(told.len(), EACH * 8);
    assert_eq!(ids(store.store(), all_events(None)).len(), told.len() + 1);
    for agent in 1..=THREADS {
        let found = store.store().events(&all_events(Some(AgentId(agent)))).unwrap();
        let numbers: Vec<_> = found.iter().map(|event| event.id).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next));
        let bodies: Vec<_> = found.into_iter().map(|event| event.body).collect();
        let sent: Vec<_> = (0..EACH).map(|n| bytes::Bytes::from(n.to_string())).collect();
        assert_eq!(bodies, sent, "in the order of their thread");
    }
}

/// Sends events without waiting for each.
fn pour(store: &Restarting, agent: AgentId, count: usize) {
    for _ in 0..count {
        store.store().add_event(agent, 5, "0".into(), Box::new(|id| assert!(id.is_ok())));
    }
}

fn trimmed(store: &mut Restarting) {
    let settings = Settings { events_max: 100, ..Settings::default() };
    let cat = AgentId(3);
    pour(store, ANN, 10_500);
    pour(store, BOB, 60);
    pour(store, ANN, 10_500);
    pour(store, cat, 101);
    pour(store, ANN, 50);
    let last = store.add_event(BOB, "1").0;
    let mut kept: Vec<Vec<u64>> = Vec::new();
    for agent in [ANN, BOB, cat] {
        let query = EventQuery { limit: 100, newest: true, ..all_events(Some(agent)) };
        kept.push(ids(store.store(), query));
    }
    assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), [100, 61, 100]);
    let (ann_cut, cat_cut) = (kept[0][0] - 102, kept[2][0] - 1);
    let is_trimmed = |store: &SharedStore| store.dropped(None, EventId(0)).unwrap().len() >= 2;
    store.keep_house_until(&settings, is_trimmed);
    // What came after the house was put in order may be in excess.
    pour(store, BOB, 100);
    let newest = store.add_event(BOB, "2").0;
    for _ in 0..2 {
        assert_eq!(ids(store.store(), all_events(Some(cat))), kept[2]);
        assert_eq!(ids(store.store(), all_events(Some(BOB))).len(), 162);
        let query = EventQuery { limit: 100, newest: true, ..all_events(Some(ANN)) };
        assert_eq!(ids(store.store(), query), kept[0]);
        let mut dropped = store.store().dropped(None, EventId(0)).unwrap();
        dropped.sort_unstable();
        assert_eq!(dropped.iter().map(|cut| cut.0).collect::<Vec<_>>(), [ANN, cat]);
        assert!(dropped[0].1.0 <= ann_cut + 101 && dropped[1].1.0 == cat_cut, "{dropped:?}");
        let of = |agent, after| store.store().dropped(Some(agent), EventId(after)).unwrap();
        assert_eq!(of(cat, cat_cut - 1), [(cat, EventId(cat_cut))]);
        assert_eq!(of(cat, cat_cut), [], "who has seen it has missed nothing");
        assert_eq!(of(BOB, 0), []);
        assert!(last < newest);
        assert_eq!(store.restart().last_event.0, newest);
    }
}

fn numbers_are_new(store: &mut Restarting) {
    let first = store.add_event(ANN, "1");
    let second = store.add_event(BOB, "2");
    store.forget(BOB);
    assert_eq!(store.restart().last_event, second, "though it is there no more");
    let third = store.add_event(ANN, "3");
    assert!(first < second && second < third);
    // Nothing is kept at all.
    let settings = Settings { events_max: 0, ..Settings::default() };
    pour(store, ANN, 20_000);
    let last = store.add_event(ANN, "4");
    store.keep_house_until(&settings, |store| ids(store, all_events(None)).is_empty());
    store.restart();
    assert!(store.add_event(ANN, "5") > last);
}
