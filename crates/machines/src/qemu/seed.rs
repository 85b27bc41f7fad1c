//! Tells a cloud image about its endpoint user: a disk of the NoCloud form, which cloud-init reads at the first boot.
//!
//! Invariant: what is written says nothing that is not known to everybody: the endpoint's password is open until the
//! machine is lent, when the guest is set up and the endpoint locked. The machine's network is closed until then.
//!
//! Not here: the form of the disk (`iso9660`), and how the guest gets it (`command`).

use std::fs;
use std::path::Path;

use serde_json::Value;
use wire::Secret;

use super::command::SEED;
use super::iso9660;
use crate::guest::check_user;
use crate::guest::ssh::{Login, Proof};
use crate::hypervisor::HypervisorError;
use crate::qemu::launch::failed;

/// The longest name of a user, as useradd(8) has it.
const USER_CHARS_MAX: usize = 32;
/// What cloud-init knows the disk by.
const VOLUME: &str = "cidata";

/// The user of the endpoint, who may run the one script; `USER` and `PASSWORD` stand for what is configured. Passwords must
/// be good from the SSH server's first moment on: who is refused then is not asked again. `ssh_pwauth` alone is looked at
/// later; it finds its file as it would write it, and does not restart the SSH server of a machine that is lent already.
const USER_DATA: &str = r#"#cloud-config
ssh_pwauth: true
ssh_deletekeys: true
ssh_genkeytypes: [ed25519, ecdsa]
manage_etc_hosts: localhost
users:
  - name: USER
    lock_passwd: false
    plain_text_passwd: PASSWORD
    shell: /bin/sh
    sudo: "ALL=(root) NOPASSWD: /bin/anweddol_container_setup.sh"
write_files:
  - path: /etc/ssh/sshd_config.d/00-machine.conf
    permissions: "0600"
    content: |
      PasswordAuthentication yes
  - path: /etc/ssh/sshd_config.d/50-cloud-init.conf
    permissions: "0600"
    content: |
      PasswordAuthentication yes
  - path: /bin/anweddol_container_setup.sh
    permissions: "0755"
    content: |
"#;

/// Makes the one user of a machine that has no agent of ours, and locks the endpoint, for which `ENDPOINT` stands.
const SCRIPT: &str = r#"#!/bin/sh
# Makes the one user of this machine and locks the endpoint. Says nothing when all went well.
set -eu
[ $# -eq 3 ] || { echo "usage: USER PASSWORD PORT"; exit 1; }
case $1 in *[!a-z0-9_-]* | '' | -*) echo "bad user"; exit 1 ;; esac
case $3 in *[!0-9]* | '') echo "bad port"; exit 1 ;; esac
exec >/dev/null
shell=/bin/bash
[ -x "$shell" ] || shell=/bin/sh
# Who may become root: Debian's kin call them one thing, Red Hat's the other.
group=sudo
grep -q "^$group:" /etc/group || group=wheel
useradd -m -s "$shell" -G "$group" "$1"
printf '%s:%s\n' "$1" "$2" | chpasswd
welcome=$(getent passwd "$1" | cut -d: -f6)/WELCOME
echo "Welcome. This machine is yours until it is given back." >"$welcome"
chown "$1:" "$welcome"
{
    echo "Port 22"
    [ "$3" = 22 ] || echo "Port $3"
    echo "AllowUsers $1"
    echo "PasswordAuthentication yes"
} >/etc/ssh/sshd_config.d/00-machine.conf
usermod -L -s /usr/sbin/nologin ENDPOINT
rm -f /etc/sudoers.d/90-cloud-init-users
systemctl reload ssh 2>/dev/null || systemctl reload sshd
"#;

/// Writes the disk's image into a machine's folder.
///
/// # Errors
/// When it cannot be written, or nobody can be called as the endpoint is configured.
pub(super) fn make(folder: &Path, name: &str, endpoint: &Login) -> Result<(), HypervisorError> {
    let unusable = |why: String| HypervisorError::Unusable(format!("endpoint_username: {why}"));
    check_user(&endpoint.user, USER_CHARS_MAX).map_err(|error| unusable(error.to_string()))?;
    let meta = format!("instance-id: {name}\nlocal-hostname: {name}\n");
    let data = user_data(endpoint);
    let files = [("user-data", data.expose()), ("meta-data", &meta)];
    let image = iso9660::image(VOLUME, &files).ok_or_else(|| {
        HypervisorError::Unusable(format!("the seed of {name} does not fit onto its disk"))
    })?;
    let path = folder.join(SEED);
    fs::write(&path, image).map_err(|error| failed("writing", &path, error))
}

/// The script stands at the end, indented as YAML wants it.
fn user_data(endpoint: &Login) -> Secret {
    let password = match &endpoint.proof {
        Proof::Password(password) => password.expose(),
        Proof::Key(_) => "",
    };
    // A text of JSON is one of YAML.
    let password = Value::from(password).to_string();
    let script = SCRIPT.replace("ENDPOINT", &endpoint.user);
    let head = USER_DATA.replace("USER", &endpoint.user).replace("PASSWORD", &password);
    Secret::new(script.lines().fold(head, |text, line| text + "      " + line + "\n"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guest::shell::SET_UP;
    use crate::qemu::process::{self, Launch};

    fn endpoint() -> Login {
        Login { user: "door".into(), proof: Proof::Password(Secret::new("a\"b: #c")), port: 22 }
    }

    #[test]
    fn the_endpoint_is_who_is_configured() {
        let data = user_data(&endpoint());
        let data = data.expose();
        let words = ["- name: door\n", "plain_text_passwd: \"a\\\"b: #c\"\n", "nologin door\n"];
        for word in words {
            assert!(data.contains(word), "no {word:?} in {data}");
        }
        let odd = Login { user: "$(reboot)".into(), ..endpoint() };
        let folder = tempfile::tempdir().unwrap();
        let error = make(folder.path(), "gatehouse-1", &odd).unwrap_err().to_string();
        assert!(error.contains("endpoint_username"), "{error}");
    }

    #[test]
    fn the_disk_is_found_by_its_name_and_holds_both_files() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), "gatehouse-1", &endpoint()).unwrap();
        let image = fs::read(folder.path().join(SEED)).unwrap();
        // A CD's description is in its 17th block; the volume's name is 40 bytes into it.
        assert_eq!(&image[16 * 2048 + 1..][..5], b"CD001");
        assert_eq!(String::from_utf8_lossy(&image[16 * 2048 + 40..][..32]).trim(), "cidata");
        let text = String::from_utf8_lossy(&image);
        assert!(
            text.contains(user_data(&endpoint()).expose())
                && text.contains("local-hostname: gatehouse-1\n")
        );
    }

    /// The texts of the files that are to be written, without the indentation that they have there.
    fn written() -> Vec<(String, String)> {
        let data = user_data(&endpoint());
        let data = data.expose();
        assert!(data.starts_with("#cloud-config\n") && !data.contains('\t'));
        let files = data.split("\n  - path: ").skip(1);
        let files = files.map(|file| {
            let (path, rest) = file.split_once('\n').unwrap();
            let (_, text) = rest.split_once("    content: |\n").unwrap();
            let lines = text.lines().map(|line| line.strip_prefix("      ").unwrap());
            (path.to_owned(), lines.map(|line| line.to_owned() + "\n").collect())
        });
        files.collect()
    }

    #[test]
    fn passwords_are_good_from_the_ssh_servers_first_moment_on_and_stay_so() {
        let written = written();
        for name in ["00-machine.conf", "50-cloud-init.conf"] {
            let path = format!("/etc/ssh/sshd_config.d/{name}");
            let file = written.iter().find(|(at, _)| *at == path).unwrap();
            assert_eq!(file.1, "PasswordAuthentication yes\n");
        }
    }

    #[tokio::test]
    async fn the_script_is_written_as_it_is_and_a_shell_understands_it() {
        let (path, text) = written().pop().unwrap();
        assert_eq!((&*path, &*text), (SET_UP, &*SCRIPT.replace("ENDPOINT", "door")));
        assert!(USER_DATA.contains(&format!("NOPASSWD: {path}\"")));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("script"), text).unwrap();
        let (program, arguments) = (Path::new("/bin/sh"), ["-n".to_owned(), "script".to_owned()]);
        let launch =
            Launch { program, arguments: &arguments, directory: folder.path(), user: None };
        process::run(launch, Duration::from_secs(10)).await.unwrap();
    }
}
