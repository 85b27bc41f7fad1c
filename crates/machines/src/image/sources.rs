//! What images are built from: the scripts of `images/` in the repository, which this program carries along.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../images/", $name)))),*]
    };
}

/// Every file: its path and its text.
const FILES: &[(&str, &str)] = embedded![
    "agent/account.c",
    "agent/agent.c",
    "agent/agent.h",
    "agent/files.c",
    "agent/identity.c",
    "build",
    "debian.sh",
    "debian/init",
    "debian/recipe.sh",
    "debian/root/etc/default/locale",
    "debian/root/etc/modules-load.d/gatehouse.conf",
    "debian/root/etc/network/interfaces",
    "debian/root/etc/ssh/sshd_config.d/gatehouse.conf",
    "debian/root/etc/sudoers.d/gatehouse",
    "debian/root/etc/systemd/system/gatehouse-guest.service",
    "debian/root/etc/systemd/system/ssh.service.d/gatehouse.conf",
    "parts.sh",
    "small/dropbear.sh",
    "small/recipe.sh",
    "small/root/bin/anweddol_container_setup.sh",
    "small/root/etc/group",
    "small/root/etc/hostname",
    "small/root/etc/hosts",
    "small/root/etc/inittab",
    "small/root/etc/nsswitch.conf",
    "small/root/etc/os-release",
    "small/root/etc/passwd",
    "small/root/etc/profile",
    "small/root/etc/rc",
    "small/root/etc/resolv.conf",
    "small/root/etc/shadow",
    "small/root/etc/shells",
    "small/root/sbin/poweroff",
    "small/root/usr/share/udhcpc/default.script",
    "small/sftp.sh",
    "small/sudo.c",
];

/// A folder with `build` and a folder with a `recipe.sh` for each image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sources {
    /// Those that this program carries along.
    #[default]
    Embedded,
    /// Own ones.
    Folder(PathBuf),
}

impl Sources {
    /// The images that those of this program can build.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        FILES.iter().filter_map(|(path, _)| path.strip_suffix("/recipe.sh")).collect()
    }

    /// The folder, which is made in `scratch` where it is not there anyway.
    pub(super) fn lay_out(&self, scratch: &Path) -> io::Result<PathBuf> {
        if let Self::Folder(folder) = self {
            return Ok(folder.clone());
        }
        for (path, text) in FILES {
            let path = scratch.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)?;
        }
        Ok(scratch.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }

    #[test]
    fn all_of_the_repository_is_carried_along() {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images"), "", &mut found);
        found.sort();
        let carried: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(found, carried);
        assert_eq!(Sources::names(), ["debian", "small"]);
    }
}
