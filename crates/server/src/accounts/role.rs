//! What each kind of account may do.
//!
//! Invariant: [`Role::may`] is the only place that decides it, and it names every act for every role.

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// May do everything that a person can ask for.
    Admin,
    /// Sends tasks and sees what comes of them.
    Operator,
    /// Sees, and changes nothing.
    Viewer,
    /// A machine that fetches tasks and reports. It sees nothing of the others.
    Agent,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Add, rename and remove agents, enrol, switch self-registration, keep webhooks, read the audit log.
    Administer,
    /// Send and cancel tasks, remove files.
    Send,
    /// Look at agents, events, tasks and their results.
    See,
    /// Fetch tasks and report events and results, as an agent does.
    Serve,
    /// Leave a file for somebody else.
    PutFile,
    /// Fetch a file that somebody else left.
    GetFile,
}

impl Role {
    /// Every role, the mightiest first.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Viewer, Self::Agent];

    /// Whether this role may do `act`.
    #[must_use]
    pub const fn may(self, act: Act) -> bool {
        match (self, act) {
            (Self::Admin, Act::Serve) => false,
            (Self::Admin, _) => true,
            (Self::Operator, Act::Send | Act::See | Act::PutFile | Act::GetFile) => true,
            (Self::Operator, Act::Administer | Act::Serve) => false,
            (Self::Viewer, Act::See | Act::GetFile) => true,
            (Self::Viewer, Act::Administer | Act::Send | Act::Serve | Act::PutFile) => false,
            (Self::Agent, Act::Serve | Act::PutFile | Act::GetFile) => true,
            (Self::Agent, Act::Administer | Act::Send | Act::See) => false,
        }
    }

    /// The name of this role, as it is written on the command line and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Agent => "agent",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::{Act, Role};

    #[track_caller]
    fn check(act: Act, who: &[Role]) {
        let may: Vec<Role> = Role::ALL.into_iter().filter(|role| role.may(act)).collect();
        assert_eq!(may, who, "{act:?}");
    }

    #[test]
    fn each_act_is_for_those_who_need_it() {
        use Role::{Admin, Agent, Operator, Viewer};
        check(Act::Administer, &[Admin]);
        check(Act::Send, &[Admin, Operator]);
        check(Act::See, &[Admin, Operator, Viewer]);
        check(Act::Serve, &[Agent]);
        check(Act::PutFile, &[Admin, Operator, Agent]);
        check(Act::GetFile, &[Admin, Operator, Viewer, Agent]);
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.name()), Some(role));
        }
        assert_eq!(Role::parse("Admin"), None);
        assert_eq!(Role::parse(""), None);
    }
}
