//! What the room is told: which plugins there shall be, and how they are run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::builtin::files::FileSettings;
use crate::parameters::Parameters;
use crate::python::PythonSettings;

/// First segments of paths that the server answers itself.
pub const RESERVED: [&str; 4] = ["plugins", "reload", "load", "unload"];

/// Everything that decides what is loaded. Made from the configuration at start and at each reload.
#[derive(Debug)]
pub struct Settings {
    /// Where plugin files are, in this order.
    pub directories: Vec<PathBuf>,
    /// File name without `.py`, or name of a built-in plugin, in lower case → parameters.
    pub parameters: BTreeMap<String, Parameters>,
    /// The configuration as plugins see it.
    pub config: Map<String, Value>,
    /// The command line as plugins see it.
    pub args: Map<String, Value>,
    /// How Python plugins are run.
    pub python: PythonSettings,
    /// The file server, if documents are configured.
    pub files: Option<FileSettings>,
}

impl Settings {
    /// The parameters for `name`; empty when none are configured.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Parameters {
        self.parameters.get(&name.to_lowercase()).cloned().unwrap_or_default()
    }

    /// How many files may be starting at the same time: starting is mostly work for a processor.
    #[must_use]
    pub fn starts_at_once(&self) -> usize {
        std::thread::available_parallelism().map_or(2, |count| count.get() + 1)
    }
}
