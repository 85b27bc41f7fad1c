//! The user that the configuration names: whom a server is that root starts.
//!
//! Invariant: who has become that user has no rights of root left, in this process and all that it starts.
//! Not here: what the server does.

use std::fs;
use std::io;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use server::config::Config;

/// A user of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whom the server is to be, where this is root and the configuration names another.
///
/// # Errors
/// When there is no such user.
pub(super) fn to_become(config: &Config) -> Result<Option<User>, String> {
    let Some(name) = config.run_as.as_ref().filter(|_| geteuid().is_root()) else {
        return Ok(None);
    };
    let user = find(name)?;
    Ok(Some(user).filter(|user| user.uid != 0))
}

/// The user of that name.
///
/// # Errors
/// When there is none.
pub(super) fn find(name: &str) -> Result<User, String> {
    let users =
        fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    in_list(&users, name).ok_or_else(|| {
        format!("there is no user {name} in /etc/passwd: make it (`useradd --system {name}`), or name another")
    })
}

fn in_list(users: &str, name: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        is_it.then(|| User { name: name.to_owned(), uid, gid })
    })
}

/// The groups that the user is in beside its own: that of KVM's device may be one.
fn groups_of(groups: &str, name: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
    };
    groups.lines().filter_map(of_line).collect()
}

impl User {
    /// From now on this thread is that user; there must be no other.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn become_it(&self) -> io::Result<()> {
        let listed = fs::read_to_string("/etc/group").unwrap_or_default();
        let groups = [self.gid].into_iter().chain(groups_of(&listed, &self.name));
        let groups: Vec<Gid> = groups.map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{User, groups_of, in_list};

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users =
            "root:x:0:0:root:/:/bin/sh\nbroken\nanweddol2:x:9:9::/:\nanweddol:x:997:996::/:\n";
        let found = in_list(users, "anweddol");
        assert_eq!(found, Some(User { name: "anweddol".into(), uid: 997, gid: 996 }));
        assert_eq!(in_list(users, "anwed"), None);
    }

    #[test]
    fn groups_are_those_that_list_the_user() {
        let groups = "root:x:0:\nkvm:x:104:libvirt,anweddol\nother:x:105:anweddol2\n";
        assert_eq!(groups_of(groups, "anweddol"), [104]);
    }
}
