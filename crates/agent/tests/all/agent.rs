//! The agent's process, its configuration and its end.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::server::{LIMIT, Server};

pub(crate) const ALL: &str = "allow=['execute_cmd','proclist','dircontents','downloadfile','uploadfile',\
    'deletefile','movefile','update','systeminfo','custom']\n";

/// A directory with a configuration and all that belongs to it.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    pub(crate) program: PathBuf,
}

impl Home {
    pub(crate) fn new(server: &Server, more: &str) -> Self {
        Self::at(&server.url, more)
    }

    pub(crate) fn at(url: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.toml");
        let text = format!(
            "url='{url}'\nname='a1'\nsecret='hunter2'\nstate_dir='{state}'\ntasks_dir='{tasks}'\n\
             lease_secs=3\n{more}",
            state = dir.path().join("state").display(),
            tasks = dir.path().join("tasks").display(),
        );
        fs::create_dir(dir.path().join("tasks")).unwrap();
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        Self { dir, config, program: env!("CARGO_BIN_EXE_gatehouse-agent").into() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts an executable into the tasks directory.
    pub(crate) fn executable(&self, name: &str, script: &str) {
        let path = self.dir.path().join("tasks").join(name);
        write_executable(&path, script.as_bytes());
    }

    pub(crate) fn start(&self) -> Agent {
        let child = command(&self.program)
            .args(["run", "-v", "-c"])
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Agent(child, String::new())
    }
}

pub(crate) fn write_executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
pub(crate) fn command(program: &Path) -> Command {
    Command::new(program)
}

/// The process, and what of its log was read too far.
pub(crate) struct Agent(Child, String);

impl Agent {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Reads on in the log until `part` comes; gives what was read.
    pub(crate) fn log_until(&mut self, part: &str) -> String {
        let errors = self.0.stderr.as_mut().unwrap();
        loop {
            if let Some(at) = self.1.find(part) {
                let rest = self.1.split_off(at + part.len());
                return std::mem::replace(&mut self.1, rest);
            }
            let mut bytes = [0; 4096];
            let count = errors.read(&mut bytes).unwrap();
            assert!(count > 0, "the log ended without `{part}`: {}", self.1);
            self.1 += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    pub(crate) fn close_log(&mut self) {
        drop(self.0.stderr.take());
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end; gives the status and the log.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut errors = self.0.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut log = String::new();
            errors.as_mut().map(|errors| errors.read_to_string(&mut log));
            log
        });
        until("the end of the agent", || self.0.try_wait().unwrap().is_some());
        let status = self.0.wait().unwrap();
        let log = self.1.clone() + &reader.join().unwrap();
        (status, log)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `look` is true; for what cannot be waited for otherwise.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !look() {
        assert!(began.elapsed() < LIMIT, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
