//! Decides what happens to open tasks: who gets which, what comes again, what has ended.
//!
//! Invariant: a task that is not yet stored is in no queue; one that is being ended is handed out to nobody and ends
//! once. Pure: time is passed in, and what must be stored is the dispatcher's affair.
//!
//! ```text
//! storing ─▶ queued ─▶ taken ──result──▶ (ended)
//!              ▲         │
//!              └─────────┘  connection reset, lease over
//! unsure: the server ended while it handed the task out; queued again when its agent asks for more
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::dispatcher::Bell;
use crate::settings::Settings;
use crate::task::{AgentId, Claim, Ending, Outcome, TaskId};

/// How long an agent counts as online after its last request.
const ONLINE_FOR: Duration = Duration::from_secs(28);
/// Bodies of open tasks that stay in memory, in bytes; others are read when they are handed out.
const BODIES_MAX: usize = 128 << 20;
/// A table with room for so many keeps it when it empties.
const ROOM_KEPT: usize = 1 << 14;
/// A longer body does not stay in memory.
const BODY_MAX: usize = 64 << 10;

/// Where an open task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is on its way to the disk.
    Storing,
    /// It waits for its agent.
    Queued,
    /// It was handed out; under a lease until `until`.
    Taken {
        /// The number of this handing-out.
        claim: Claim,
        /// The end of the lease, if there is one.
        until: Option<Instant>,
    },
    /// Whether its agent got it is not known.
    Unsure,
}

/// A task that has not ended.
#[derive(Debug)]
pub struct Open {
    /// Who is to do it.
    pub agent: AgentId,
    /// Higher is handed out first.
    pub priority: i8,
    /// Where it stands.
    pub phase: Phase,
    /// Its end is on the way to the disk.
    pub is_ending: bool,
    /// `None` when it must be read.
    pub body: Option<Bytes>,
    /// How often it was handed out.
    pub attempts: u32,
    /// How often it may be, under leases.
    pub attempts_max: u32,
    /// Until when it may be handed out.
    pub expires: Option<Instant>,
    /// When it was handed out last, in milliseconds since 1970.
    pub taken_at: Option<u64>,
    /// How long its last lease was.
    pub lease: Option<Duration>,
    /// Who waits for its end.
    pub waiters: Vec<oneshot::Sender<Arc<Ending>>>,
    /// Wakes who follows its output, if anybody does.
    pub followers: Option<Arc<Notify>>,
}

impl Open {
    /// There is more output, or an end.
    pub fn ring_followers(&self) {
        if let Some(followers) = &self.followers {
            followers.notify_waiters();
        }
    }

    /// When it expires, and when the lease is over under which it was handed out.
    fn deadlines(&self) -> impl Iterator<Item = Instant> + use<> {
        let lease_end = match self.phase {
            Phase::Taken { until, .. } => until,
            Phase::Storing | Phase::Queued | Phase::Unsure => None,
        };
        self.expires.into_iter().chain(lease_end)
    }
}

/// One agent's part.
#[derive(Debug, Default)]
struct Desk {
    /// By falling priority, then in order.
    queue: BTreeSet<(Reverse<i8>, TaskId)>,
    unsure: Vec<TaskId>,
    bell: Arc<Bell>,
    pollers: u32,
    seen: Option<Instant>,
}

/// A task that was handed out.
#[derive(Debug)]
pub struct Claimed {
    /// Which.
    pub task: TaskId,
    /// The number of this handing-out.
    pub claim: Claim,
    /// How often it has been handed out, this time included.
    pub attempts: u32,
    /// `None` when it must be read.
    pub body: Option<Bytes>,
}

/// What to do about a task whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Ring the bell: it is queued again.
    Ring(AgentId),
    /// End it.
    End(TaskId, Outcome, &'static str),
}

/// Whether a result, or another end, is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is the first; the task is being ended now.
    First,
    /// The claim it names is no longer held, or another end was faster.
    Late,
    /// No open task of this agent has the number.
    Unknown,
}

/// All open tasks.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    /// On the heap one by one: a table has room for up to twice as many as there are.
    tasks: HashMap<TaskId, Box<Open>>,
    desks: HashMap<AgentId, Desk>,
    deadlines: BTreeSet<(Instant, TaskId)>,
    bodies: usize,
    next_task: u64,
    next_claim: u64,
}

impl Ledger {
    /// An empty ledger. `next_task` is the first number that is free; `run` counts the starts of the server, so that
    /// claims of an earlier one are never met again.
    #[must_use]
    pub fn new(settings: Settings, next_task: u64, run: u32) -> Self {
        Self {
            settings,
            tasks: HashMap::new(),
            desks: HashMap::new(),
            deadlines: BTreeSet::new(),
            bodies: 0,
            next_task,
            next_claim: (u64::from(run) << 32) + 1,
        }
    }

    /// The number of the next task.
    pub fn number(&mut self) -> TaskId {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        id
    }

    fn number_claim(&mut self) -> Claim {
        let claim = Claim(self.next_claim);
        self.next_claim += 1;
        claim
    }

    /// Whether `agent` may be sent another task.
    #[must_use]
    pub fn has_room(&self, agent: AgentId) -> bool {
        self.desks.get(&agent).is_none_or(|desk| desk.queue.len() < self.settings.queue_max)
    }

    /// Takes up a task in any phase.
    pub fn add(&mut self, id: TaskId, mut open: Open) {
        if let Some(body) = &open.body {
            if body.len() > BODY_MAX || self.bodies + body.len() > BODIES_MAX {
                open.body = None;
            } else {
                self.bodies += body.len();
                // Of its own: as it came it may be a small part of a large buffer, which would stay with it.
                open.body = Some(Bytes::copy_from_slice(body));
            }
        }
        let desk = self.desks.entry(open.agent).or_default();
        match open.phase {
            Phase::Queued => {
                desk.queue.insert((Reverse(open.priority), id));
            }
            Phase::Unsure => desk.unsure.push(id),
            Phase::Storing | Phase::Taken { .. } => {}
        }
        self.tasks.insert(id, Box::new(open));
        self.watch(id);
    }

    /// Sees to it that [`Ledger::due`] finds the task when its time comes, or at once where it has come already.
    fn watch(&mut self, id: TaskId) {
        let Some(open) = self.tasks.get(&id) else { return };
        self.deadlines.extend(open.deadlines().map(|deadline| (deadline, id)));
    }

    /// Forgets the deadlines of a task that changes or ends: they would stay until their time comes, and that may be
    /// a year.
    fn unwatch(&mut self, id: TaskId) {
        let Some(open) = self.tasks.get(&id) else { return };
        for deadline in open.deadlines() {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Puts an open task into its place in the queue. Returns the bell to ring.
    fn queue(&mut self, id: TaskId) -> Option<Arc<Bell>> {
        self.unwatch(id);
        let open = self.tasks.get_mut(&id)?;
        open.phase = Phase::Queued;
        let (agent, key) = (open.agent, (Reverse(open.priority), id));
        let desk = self.desks.entry(agent).or_default();
        desk.queue.insert(key);
        let bell = Arc::clone(&desk.bell);
        // Its lifetime may have ended while it was not queued.
        self.watch(id);
        Some(bell)
    }

    /// The task is on the disk: it may be handed out. Returns the bell to ring.
    pub fn stored(&mut self, id: TaskId) -> Option<Arc<Bell>> {
        self.tasks.get(&id).filter(|open| open.phase == Phase::Storing)?;
        self.queue(id)
    }

    /// Hands out up to `max` tasks. What has expired is left to [`Ledger::due`].
    pub fn claim(
        &mut self,
        agent: AgentId,
        max: usize,
        lease: Option<Duration>,
        now: Instant,
        now_ms: u64,
    ) -> Vec<Claimed> {
        self.requeue_unsure(agent);
        let mut claimed = Vec::new();
        while claimed.len() < max {
            let next = self.desks.get_mut(&agent).and_then(|desk| desk.queue.pop_first());
            let Some((_, task)) = next else { break };
            let claim = self.number_claim();
            let Some(open) = self.tasks.get_mut(&task) else { continue };
            if open.expires.is_some_and(|expires| expires <= now) || open.is_ending {
                continue;
            }
            let until = lease.map(|lease| now + lease);
            open.phase = Phase::Taken { claim, until };
            open.lease = lease;
            open.attempts += 1;
            open.taken_at = Some(now_ms);
            claimed.push(Claimed { task, claim, attempts: open.attempts, body: open.body.clone() });
            if until.is_some() {
                self.watch(task);
            }
        }
        claimed
    }

    /// An agent that asks for more without having answered did not get what was under way when the server ended.
    fn requeue_unsure(&mut self, agent: AgentId) {
        let Some(desk) = self.desks.get_mut(&agent) else { return };
        for id in std::mem::take(&mut desk.unsure) {
            let open = self.tasks.get_mut(&id);
            if let Some(open) = open.filter(|o| o.phase == Phase::Unsure && !o.is_ending) {
                open.phase = Phase::Queued;
                desk.queue.insert((Reverse(open.priority), id));
            }
        }
    }

    /// The task was not received: it goes back to its place, if `claim` still holds it. Returns the bell to ring.
    pub fn put_back(&mut self, id: TaskId, claim: Claim) -> Option<Arc<Bell>> {
        let open = self.tasks.get_mut(&id)?;
        if !matches!(open.phase, Phase::Taken { claim: held, .. } if held == claim)
            || open.is_ending
        {
            return None;
        }
        // It was never there, so it was no attempt.
        open.attempts = open.attempts.saturating_sub(1);
        self.queue(id)
    }

    /// A task comes to its end, if nothing else ends it: `by` is the agent that sends a result, if one does, and
    /// `claim` what it holds the task by.
    pub fn begin_end(
        &mut self,
        id: TaskId,
        by: Option<AgentId>,
        claim: Option<Claim>,
        now: Instant,
    ) -> Judgement {
        let Some(open) = self.tasks.get_mut(&id) else { return Judgement::Unknown };
        if by.is_some_and(|agent| agent != open.agent) || open.phase == Phase::Storing {
            return Judgement::Unknown;
        }
        let holds = match (claim, open.phase) {
            (None, _) => true,
            (Some(claim), Phase::Taken { claim: held, until }) => {
                claim == held && until.is_none_or(|until| now < until)
            }
            (Some(_), _) => false,
        };
        if !holds || open.is_ending {
            return Judgement::Late;
        }
        open.is_ending = true;
        if open.phase == Phase::Queued
            && let Some(desk) = self.desks.get_mut(&open.agent)
        {
            desk.queue.remove(&(Reverse(open.priority), id));
        }
        Judgement::First
    }

    /// Its end is on the disk: it is no longer open.
    pub fn ended(&mut self, id: TaskId) -> Option<Open> {
        self.unwatch(id);
        let open = self.tasks.remove(&id)?;
        self.bodies -= open.body.as_ref().map_or(0, Bytes::len);
        // A table gives nothing back by itself. To move what is left costs little beside what has ended since.
        if self.tasks.capacity() > ROOM_KEPT && self.tasks.len() < self.tasks.capacity() / 8 {
            self.tasks.shrink_to(self.tasks.len() * 2);
        }
        Some(*open)
    }

    /// Its end could not be stored: it goes on as before. Returns the bell to ring.
    pub fn end_failed(&mut self, id: TaskId) -> Option<Arc<Bell>> {
        let open = self.tasks.get_mut(&id)?;
        open.is_ending = false;
        match open.phase {
            Phase::Queued => return self.queue(id),
            // A poll may have passed over it meanwhile.
            Phase::Unsure => self.desks.entry(open.agent).or_default().unsure.push(id),
            Phase::Storing | Phase::Taken { .. } => {}
        }
        // If it was its time that ended it, that is tried again.
        self.watch(id);
        None
    }

    /// The agent works on it still. Says whether it holds the task.
    pub fn extend(
        &mut self,
        id: TaskId,
        agent: AgentId,
        claim: Claim,
        lease: Duration,
        now: Instant,
    ) -> bool {
        let holds = |open: &&Open| {
            matches!(open.phase, Phase::Taken { claim: held, until: Some(until) }
                if held == claim && until > now)
                && open.agent == agent
                && !open.is_ending
        };
        if self.get(id).filter(holds).is_none() {
            return false;
        }
        self.unwatch(id);
        if let Some(open) = self.tasks.get_mut(&id) {
            open.phase = Phase::Taken { claim, until: Some(now + lease) };
            open.lease = Some(lease);
        }
        self.watch(id);
        true
    }

    /// Up to `max` tasks whose time has come; the tasks to end are not yet being ended.
    pub fn due(&mut self, now: Instant, max: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < max {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= now => {}
                _ => break,
            }
            let Some((_, id)) = self.deadlines.pop_first() else { break };
            due.extend(self.due_now(id, now));
        }
        due
    }

    fn due_now(&mut self, id: TaskId, now: Instant) -> Option<Due> {
        let open = self.tasks.get_mut(&id).filter(|open| !open.is_ending)?;
        let has_expired = open.expires.is_some_and(|expires| expires <= now);
        match open.phase {
            Phase::Storing => None,
            Phase::Queued | Phase::Unsure if has_expired => {
                Some(Due::End(id, Outcome::Expired, "nobody took it in time"))
            }
            Phase::Queued | Phase::Unsure => None,
            Phase::Taken { until: None, .. } => None,
            Phase::Taken { until: Some(until), .. } if until > now => None,
            Phase::Taken { .. } if open.attempts >= open.attempts_max => Some(Due::End(
                id,
                Outcome::Dead,
                "its agent took it as often as it may and never answered",
            )),
            Phase::Taken { .. } if has_expired => {
                Some(Due::End(id, Outcome::Expired, "its agent did not answer in time"))
            }
            Phase::Taken { .. } => {
                let agent = open.agent;
                self.queue(id).map(|_| Due::Ring(agent))
            }
        }
    }

    /// Tasks that were handed out without a lease before `before` (milliseconds since 1970): given up.
    #[must_use]
    pub fn abandoned(&self, before: u64) -> Vec<TaskId> {
        let is_old = |open: &Open| {
            matches!(open.phase, Phase::Taken { until: None, .. })
                && !open.is_ending
                && open.taken_at.is_some_and(|at| at < before)
        };
        self.tasks.iter().filter(|(_, open)| is_old(open)).map(|(id, _)| *id).collect()
    }

    /// An open task.
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<&Open> {
        self.tasks.get(&id).map(|open| &**open)
    }

    /// The same, to wait for its end.
    pub fn get_mut(&mut self, id: TaskId) -> Option<&mut Open> {
        self.tasks.get_mut(&id).map(|open| &mut **open)
    }

    /// The bell of an agent.
    pub fn bell(&mut self, agent: AgentId) -> Arc<Bell> {
        Arc::clone(&self.desks.entry(agent).or_default().bell)
    }

    /// An agent begins (or ends) to wait for tasks.
    pub fn polls(&mut self, agent: AgentId, begins: bool, now: Instant) {
        if begins {
            self.desks.entry(agent).or_default().pollers += 1;
        }
        // An agent that was removed while it waited has no desk any more, and gets none by leaving.
        let Some(desk) = self.desks.get_mut(&agent) else { return };
        if !begins {
            desk.pollers = desk.pollers.saturating_sub(1);
        }
        desk.seen = Some(now);
    }

    /// An agent asked for something.
    pub fn seen(&mut self, agent: AgentId, now: Instant) {
        self.desks.entry(agent).or_default().seen = Some(now);
    }

    /// Whether an agent waits for tasks, or has asked for something just now.
    #[must_use]
    pub fn is_online(&self, agent: AgentId, now: Instant) -> bool {
        self.desks.get(&agent).is_some_and(|desk| {
            desk.pollers > 0 || desk.seen.is_some_and(|seen| now < seen + ONLINE_FOR)
        })
    }

    /// How many tasks wait for an agent.
    #[cfg(test)]
    #[must_use]
    pub fn queued(&self, agent: AgentId) -> usize {
        self.desks.get(&agent).map_or(0, |desk| desk.queue.len())
    }

    /// Agents with open tasks, and those that have asked for some.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentId> {
        self.desks.keys().copied().collect()
    }

    /// Forgets an agent and its tasks; who waits for them is told by what is returned.
    pub fn forget(&mut self, agent: AgentId) -> Vec<(TaskId, Open)> {
        let ids: Vec<TaskId> =
            self.tasks.iter().filter(|(_, open)| open.agent == agent).map(|(id, _)| *id).collect();
        if let Some(desk) = self.desks.remove(&agent) {
            desk.bell.close();
        }
        ids.into_iter().filter_map(|id| Some((id, self.ended(id)?))).collect()
    }
}

#[cfg(test)]
mod tests;
