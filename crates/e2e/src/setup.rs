//! What a test prepares before its server starts: settings, plugins, files.
//!
//! Invariant: everything lies in one new directory; `{dir}` in any setting or text becomes its path.
//! Not here: the running server (`server`).

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::{Exit, Process, Server, program};

/// The first line of every plugin.
const IMPORT: &str = "from plugincore.baseplugin import BasePlugin\n";

/// A server to be.
#[derive(Debug)]
pub struct Setup {
    directory: TempDir,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    /// Instead of the sections.
    whole: Option<String>,
    environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// A server on a free port of 127.0.0.1, without plugins, that logs everything.
    ///
    /// # Panics
    /// When there can be no temporary directory.
    #[must_use]
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        fs::create_dir(directory.path().join("plugins")).expect("a directory for plugins");
        let setup =
            Self { directory, sections: BTreeMap::new(), whole: None, environment: Vec::new() };
        setup
            .set("network", "bindto", "127.0.0.1")
            .set("network", "port", "0")
            .set("paths", "plugins", "{dir}/plugins")
            .set("log", "level", "debug")
    }

    /// Sets `key` in `[section]`.
    #[must_use]
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        self.sections.entry(section.into()).or_default().insert(key.into(), value.into());
        self
    }

    /// Sets the parameters of the plugins in `file` (without `.py`).
    #[must_use]
    pub fn parameters(self, file: &str, parameters: &str) -> Self {
        self.set("plugin_parms", file, parameters)
    }

    /// Takes `text` for the whole configuration file.
    #[must_use]
    pub fn whole(mut self, text: &str) -> Self {
        self.whole = Some(text.to_owned());
        self
    }

    /// Adds a variable to the server's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Writes a plugin file, its first import added.
    #[must_use]
    pub fn plugin(self, file: &str, code: &str) -> Self {
        let code = code.replace("{dir}", &self.directory.path().display().to_string());
        self.file(&format!("plugins/{file}"), format!("{IMPORT}{code}"))
    }

    /// Writes a plugin that is one class with one plain handler with this body; the file is named
    /// as the class in lower case.
    #[must_use]
    pub fn handler(self, class: &str, body: &str) -> Self {
        let file = format!("{}.py", class.to_lowercase());
        self.plugin(&file, &handler_class(class, "def", body))
    }

    /// As [`Self::handler`], with an async handler.
    #[must_use]
    pub fn async_handler(self, class: &str, body: &str) -> Self {
        let file = format!("{}.py", class.to_lowercase());
        self.plugin(&file, &handler_class(class, "async def", body))
    }

    /// Writes any other file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        write(self.directory.path(), path, content.as_ref());
        self
    }

    /// Runs plugins with the virtual environment that holds aiohttp, cryptography and psutil.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn with_python_packages(self) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
        let venv = root.canonicalize().unwrap_or(root);
        let python = venv.join("bin/python");
        assert!(python.exists(), "no Python packages in {}: `make test` puts them", venv.display());
        self.set("python", "venv", &venv.display().to_string())
    }

    /// The directory of it all.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The text of the configuration file.
    #[must_use]
    pub fn configuration(&self) -> String {
        let text = self.whole.clone().unwrap_or_else(|| {
            let mut text = String::new();
            for (section, keys) in &self.sections {
                text += &format!("[{section}]\n");
                for (key, value) in keys {
                    text += &format!("{key}={value}\n");
                }
            }
            text
        });
        text.replace("{dir}", &self.directory.path().display().to_string())
    }

    /// Writes the configuration file under this name and gives its path.
    #[must_use]
    pub fn write_configuration(&self, name: &str) -> PathBuf {
        write(self.directory.path(), name, self.configuration().as_bytes());
        self.directory.path().join(name)
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(self) -> Server {
        let file = self.write_configuration("gatehouse.ini");
        let arguments = ["serve".into(), "-i".into(), file.into_os_string()];
        self.start_with(&program(), &arguments)
    }

    /// Starts the server by another name or with other arguments.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn start_with(self, program: &Path, arguments: &[std::ffi::OsString]) -> Server {
        let process = Process::start(program, arguments, self.directory.path(), &self.environment);
        Server::new(self, process)
    }

    /// Starts the server for a start that must fail, and gives how it ended.
    ///
    /// # Panics
    /// When it does not end, or ends well.
    #[must_use]
    pub fn fail_to_start(self) -> Exit {
        let file = self.write_configuration("gatehouse.ini");
        let arguments = ["serve".into(), "-i".into(), file.into_os_string()];
        let mut process =
            Process::start(&program(), &arguments, self.directory.path(), &self.environment);
        let exit = process.wait();
        assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
        assert!(!exit.stdout.contains("listening"), "{exit:?}");
        exit
    }
}

/// Python text of one plugin class with one handler.
#[must_use]
pub(crate) fn handler_class(class: &str, def: &str, body: &str) -> String {
    let mut text =
        format!("class {class}(BasePlugin):\n    {def} request_handler(self, **data):\n");
    for line in body.trim_matches('\n').lines() {
        text += &format!("        {line}\n");
    }
    text
}

/// Python text of one whole plugin file.
pub(crate) fn handler_file(class: &str, body: &str) -> String {
    format!("{IMPORT}{}", handler_class(class, "def", body))
}

/// Writes a file below `directory`, its folders too.
pub(crate) fn write(directory: &Path, path: &str, content: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().expect("below the directory")).expect("its folder");
    fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A port of 127.0.0.1 that nobody listens on, outside the range that the system hands out.
///
/// # Panics
/// When all are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 6000).expect("below 6000");
    (0..4000)
        .map(|_| 20_000 + own + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
