//! Carries events into their index and drops those that are too many of one agent.
//!
//! Events lie in the order in which they came, those of many agents side by side. So a round first goes through the
//! index, agent by agent, and gathers what is too many; then it drops that in the order in which it lies.
//!
//! Invariant: that events of an agent are gone is written down before they are, and the index has forgotten them only
//! after; how far the index reaches is noted last, so that a round that was cut off is done again.

use std::sync::{Arc, MutexGuard, PoisonError, atomic::Ordering::Relaxed};

use database::rusqlite::{Connection, Error, OptionalExtension as _};

use super::Round;
use crate::store::sqlite::lazy::{Lazy, Slice};
use crate::store::sqlite::schema;
use crate::task::AgentId;

/// Events that are dropped in one slice.
const DROPPED_MAX: usize = 1024;
/// Agents whose part of the index is cut in one slice.
const CUTS_MAX: usize = 64;

/// What is too many.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    ids: Vec<u64>,
    /// The newest of an agent that is.
    cuts: Vec<(AgentId, u64)>,
}

impl Surplus {
    /// Whole runs of numbers that lie side by side, `max` numbers at most; taken from the end.
    fn runs(&mut self, max: usize) -> Vec<(u64, u64)> {
        let from = self.ids.len().saturating_sub(max);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for id in self.ids.drain(from..) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => runs.push((id, id)),
            }
        }
        runs
    }
}

impl Round {
    fn surplus(&self) -> MutexGuard<'_, Surplus> {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a slice over.
    pub(super) fn file_events(self, slice: Slice) {
        let (round, rows) = (self.clone(), slice.clone());
        let job = move |tx: &Connection| {
            let mut found = Surplus::default();
            for rows in rows.rows.chunk_by(|one, other| one.0 == other.0) {
                let ids: Vec<u64> = rows.iter().map(|row| row.1).collect();
                let Some((agent, _)) = rows.first() else { continue };
                let kept = round.settings.events_max;
                let cut = file(tx, &round.events, *agent, &ids, kept, &mut found)?;
                round.dropped_to.fetch_max(cut, Relaxed);
            }
            Ok(found)
        };
        let database = self.database.clone();
        database.write_then(job, move |outcome| {
            if let Ok(found) = &outcome {
                self.events.moved(&slice);
                let mut surplus = self.surplus();
                surplus.ids.extend(&found.ids);
                surplus.cuts.extend(&found.cuts);
            }
            if outcome.is_ok() && slice.ends_round() {
                self.surplus().ids.sort_unstable();
                self.drop_events(slice);
            } else {
                self.next(&outcome, true);
            }
        });
    }

    /// Drops what the round has gathered; `slice` is its last.
    fn drop_events(self, slice: Slice) {
        let runs = self.surplus().runs(DROPPED_MAX);
        if runs.is_empty() {
            return self.cut_index(slice);
        }
        let job = move |tx: &Connection| {
            let mut delete = tx.prepare_cached("DELETE FROM events WHERE id BETWEEN ?1 AND ?2")?;
            runs.into_iter().try_for_each(|run| delete.execute(run).map(drop))
        };
        let database = self.database.clone();
        database.write_then(job, move |outcome| match outcome {
            Ok(()) => self.drop_events(slice),
            Err(_) => self.next(&outcome, false),
        });
    }

    fn cut_index(self, slice: Slice) {
        let cuts: Vec<(AgentId, u64)> = {
            let mut surplus = self.surplus();
            let from = surplus.cuts.len().saturating_sub(CUTS_MAX);
            surplus.cuts.drain(from..).collect()
        };
        let is_last = cuts.is_empty();
        let (lazy, last) = (Arc::clone(&self.events), slice.clone());
        let job = move |tx: &Connection| {
            let sql = "DELETE FROM agent_events WHERE agent = ?1 AND id <= ?2";
            let mut delete = tx.prepare_cached(sql)?;
            cuts.iter().try_for_each(|(agent, cut)| delete.execute((agent.0, cut)).map(drop))?;
            if is_last { lazy.note(tx, &last) } else { Ok(()) }
        };
        let database = self.database.clone();
        database.write_then(job, move |outcome| match outcome {
            Ok(()) if !is_last => self.cut_index(slice),
            outcome => self.next(&outcome, true),
        });
    }
}

/// Carries new events of one agent over and gathers those that are too many; returns the newest of them.
fn file(
    tx: &Connection,
    lazy: &Lazy,
    agent: AgentId,
    ids: &[u64],
    kept: usize,
    found: &mut Surplus,
) -> Result<u64, Error> {
    // What would be dropped again at once does not enter the index.
    let (surplus, ids) = ids.split_at(ids.len().saturating_sub(kept));
    found.ids.extend(surplus);
    lazy.insert(tx, agent, ids)?;
    let indexed_cut: Option<u64> = tx
        .prepare_cached(
            "SELECT id FROM agent_events WHERE agent = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row((agent.0, kept), |row| row.get(0))
        .optional()?;
    if let Some(cut) = indexed_cut {
        let mut all =
            tx.prepare_cached("SELECT id FROM agent_events WHERE agent = ?1 AND id <= ?2")?;
        for id in all.query_map((agent.0, cut), |row| row.get(0))? {
            found.ids.push(id?);
        }
    }
    let cut = surplus.last().copied().max(indexed_cut).unwrap_or(0);
    if cut > 0 {
        found.cuts.push((agent, cut));
        // The newest of all may be among them, and no number is given twice.
        schema::raise(tx, "event_high", cut)?;
        tx.prepare_cached(
            "INSERT INTO event_cuts(agent, cut) VALUES (?1, ?2) ON CONFLICT(agent) DO UPDATE SET cut = max(cut, ?2)",
        )?
        .execute((agent.0, cut))?;
    }
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_side_by_side_are_dropped_together() {
        let mut surplus = Surplus { ids: vec![1, 2, 3, 7, 9, 10], cuts: Vec::new() };
        assert_eq!(surplus.runs(4), [(3, 3), (7, 7), (9, 10)]);
        assert_eq!(surplus.runs(4), [(1, 2)]);
        assert_eq!(surplus.runs(4), []);
    }
}
