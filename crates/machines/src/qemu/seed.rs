//! Tells a cloud image about its endpoint user: a CD of the NoCloud form, which cloud-init reads at the first boot.
//!
//! Invariant: what is written says nothing that is not known to everybody: the endpoint's password is open until the
//! machine is lent, when the guest is set up and the endpoint locked. The machine's network is closed until then.
//!
//! Not here: the form of the CD (`iso9660`), and how the guest gets it (`command`).

use std::fs;
use std::path::Path;

use super::command::SEED;
use super::iso9660;
use crate::hypervisor::HypervisorError;
use crate::qemu::launch::failed;

/// What cloud-init knows the CD by.
const VOLUME: &str = "cidata";

/// The user of the endpoint: `endpoint` with the same word as its password, who may run the one script.
const USER_DATA: &str = r#"#cloud-config
ssh_pwauth: true
ssh_deletekeys: true
users:
  - name: endpoint
    lock_passwd: false
    plain_text_passwd: endpoint
    shell: /bin/sh
    sudo: "ALL=(root) NOPASSWD: /bin/anweddol_container_setup.sh"
write_files:
  - path: /bin/anweddol_container_setup.sh
    permissions: "0755"
    content: |
      #!/bin/sh
      # Makes the one user of this machine and locks the endpoint. Says nothing when all went well.
      set -eu
      [ $# -eq 3 ] || { echo "usage: USER PASSWORD PORT"; exit 1; }
      case $1 in *[!a-z0-9_-]* | '' | -*) echo "bad user"; exit 1 ;; esac
      case $3 in *[!0-9]* | '') echo "bad port"; exit 1 ;; esac
      exec 3>&1 >/dev/null
      useradd -m -s /bin/bash -G sudo "$1"
      printf '%s:%s\n' "$1" "$2" | chpasswd
      echo "Welcome. This machine is yours until it is given back." >"$(getent passwd "$1" | cut -d: -f6)/WELCOME"
      {
          echo "Port 22"
          [ "$3" = 22 ] || echo "Port $3"
          echo "AllowUsers $1"
          echo "PasswordAuthentication yes"
      } >/etc/ssh/sshd_config.d/00-machine.conf
      usermod -L -s /usr/sbin/nologin endpoint
      rm -f /etc/sudoers.d/90-cloud-init-users
      systemctl reload ssh 2>/dev/null || systemctl reload sshd
"#;

/// Writes the CD's image into a machine's folder.
///
/// # Errors
/// When it cannot be written.
pub(super) fn make(folder: &Path, name: &str) -> Result<(), HypervisorError> {
    let meta = format!("instance-id: {name}\nlocal-hostname: {name}\n");
    let files = [("user-data", USER_DATA), ("meta-data", &meta)];
    let image = iso9660::image(VOLUME, &files).ok_or_else(|| {
        HypervisorError::Unusable(format!("the seed of {name} does not fit onto its CD"))
    })?;
    let path = folder.join(SEED);
    fs::write(&path, image).map_err(|error| failed("writing", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cd_is_found_by_its_name_and_holds_both_files() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), "gatehouse-1").unwrap();
        let image = fs::read(folder.path().join(SEED)).unwrap();
        // A CD's description is in its 17th block; the volume's name is 40 bytes into it.
        assert_eq!(&image[16 * 2048 + 1..][..5], b"CD001");
        assert_eq!(String::from_utf8_lossy(&image[16 * 2048 + 40..][..32]).trim(), "cidata");
        let text = String::from_utf8_lossy(&image);
        assert!(text.contains("#cloud-config\n") && text.contains("local-hostname: gatehouse-1\n"));
    }
}
