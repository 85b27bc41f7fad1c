//! The room of tasks and events: what agents are to do, what they answer, what they report.
//!
//! Invariant: what is acknowledged has been stored before, and nothing is handed out before it is stored.
//! Agents are numbers here ([`AgentId`]); who may be which agent is decided at the door.
//!
//! `dispatcher` is what doors ask, `ledger` decides (pure, in memory), `store` keeps (the seam).

pub mod delivery;
pub mod dispatcher;
pub mod events;
pub mod ledger;
pub mod settings;
pub mod store;
pub mod task;

mod timekeeper;

pub use dispatcher::Dispatcher;
pub use settings::Settings;
pub use task::{AgentId, Claim, EventId, TaskId};
