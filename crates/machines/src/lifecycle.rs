//! The states of a machine and what moves it from one to the next. Pure: the machine's driver calls [`next`].
//!
//! ```text
//!              started            lent
//!   Starting ──────────▶ SettingUp ──────▶ Ready
//!      │                  │  │   ▲            │
//!      │           parked │  │   │ unparked   │
//!      │                  ▼  │   │            │
//!      │                 Spare───┘            │
//!      └───────────┬──────┴──┬────────────────┘
//!                  ▼ stop    ▼
//!                Ending ──────▶ (gone: no state at all)
//! ```
//! A spare is a machine of the warm pool: set up, paused, nobody's.

use serde::Serialize;

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its virtual machine is being started.
    Starting,
    /// Its guest runs; its user is being made.
    SettingUp,
    /// It waits in the warm pool, paused.
    Spare,
    /// It is lent.
    Ready,
    /// It is being taken back.
    Ending,
}

/// What happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its guest runs and answers.
    Started,
    /// It goes to the warm pool.
    Parked,
    /// It leaves the warm pool for somebody.
    Unparked,
    /// It has a user and a port.
    Lent,
    /// It has to end, for whatever reason.
    Stop,
}

/// What a machine does after `event`; `None` where that cannot happen.
#[must_use]
pub fn next(state: State, event: Event) -> Option<State> {
    Some(match (state, event) {
        (State::Starting, Event::Started) | (State::Spare, Event::Unparked) => State::SettingUp,
        (State::SettingUp, Event::Parked) => State::Spare,
        (State::SettingUp, Event::Lent) => State::Ready,
        (State::Starting | State::SettingUp | State::Spare | State::Ready, Event::Stop) => {
            State::Ending
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(events: &[Event], end: Option<State>) {
        let state = events.iter().try_fold(State::Starting, |state, event| next(state, *event));
        assert_eq!(state, end, "{events:?}");
    }

    #[test]
    fn a_machine_is_lent_at_once_or_out_of_the_pool() {
        use Event::{Lent, Parked, Started, Stop, Unparked};
        check(&[Started, Lent], Some(State::Ready));
        check(&[Started, Parked, Unparked, Lent, Stop], Some(State::Ending));
    }

    #[test]
    fn a_machine_can_be_stopped_in_every_state_but_once() {
        use Event::{Lent, Parked, Started, Stop};
        for before in [&[][..], &[Started], &[Started, Parked], &[Started, Lent]] {
            check(&[before, &[Stop]].concat(), Some(State::Ending));
            check(&[before, &[Stop, Stop]].concat(), None);
        }
    }

    #[test]
    fn nothing_is_lent_that_was_not_set_up() {
        use Event::{Lent, Parked, Started, Unparked};
        check(&[Lent], None);
        check(&[Started, Parked, Lent], None);
        check(&[Started, Unparked], None);
        check(&[Started, Lent, Lent], None);
    }
}
