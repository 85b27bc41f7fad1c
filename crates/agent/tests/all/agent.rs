//! The agent's process, its configuration and its end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::server::{LIMIT, Server};

pub const ALL: &str = "allow=['execute_cmd','proclist','dircontents','downloadfile','uploadfile',\
    'deletefile','movefile','update','systeminfo','custom']\n";

/// A directory with a configuration and all that belongs to it.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
    pub program: PathBuf,
}

impl Home {
    pub fn new(server: &Server, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.toml");
        let text = format!(
            "url='{}'\nname='a1'\nsecret='hunter2'\nstate_dir='{state}'\ntasks_dir='{tasks}'\n\
             lease_secs=3\n{more}",
            server.url,
            state = dir.path().join("state").display(),
            tasks = dir.path().join("tasks").display(),
        );
        fs::create_dir(dir.path().join("tasks")).unwrap();
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        Self { dir, config, program: env!("CARGO_BIN_EXE_gatehouse-agent").into() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts an executable into the tasks directory.
    pub fn executable(&self, name: &str, script: &str) {
        let path = self.dir.path().join("tasks").join(name);
        write_executable(&path, script.as_bytes());
    }

    pub fn start(&self) -> Agent {
        let child = command(&self.program)
            .args(["run", "-v", "-c"])
            .arg(&self.config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Agent(child)
    }
}

pub fn write_executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
pub fn command(program: &Path) -> Command {
    Command::new(program)
}

pub struct Agent(Child);

impl Agent {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end; gives the status and the log.
    pub fn end(mut self) -> (ExitStatus, String) {
        let (ended, wait) = mpsc::channel();
        let mut child = std::mem::replace(&mut self.0, command(Path::new("true")).spawn().unwrap());
        std::thread::spawn(move || {
            let mut log = String::new();
            let mut errors = child.stderr.take().unwrap();
            let _ = std::io::Read::read_to_string(&mut errors, &mut log);
            let _ = ended.send((child.wait().unwrap(), log));
        });
        wait.recv_timeout(LIMIT).expect("the agent did not end")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `look` is true; for what cannot be waited for otherwise.
pub fn until(what: &str, look: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !look() {
        assert!(began.elapsed() < LIMIT, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
