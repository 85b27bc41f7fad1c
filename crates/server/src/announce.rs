//! What whoever started the server is told on standard output.
//!
//! Invariant: that nobody reads it is no reason to fail.
//! Not here: the log.

use std::io::{self, Write as _};

/// Plugins that are shown among the commands to try.
const PLUGINS_SHOWN_MAX: usize = 8;

/// How much is told.
#[derive(Debug, Clone, Copy)]
pub enum Announce {
    /// That it starts, and where it listens.
    Lines,
    /// That, and commands to try.
    LinesAndHints,
    /// What this says once the server is ready, and nothing else.
    Ready(fn() -> String),
}

impl Announce {
    /// Tells this, unless one word at the end is all that is wanted.
    pub(crate) fn say(self, line: &str) {
        if !matches!(self, Self::Ready(_)) {
            print(line);
        }
    }

    /// Tells that the server is ready, at these addresses and with these plugins.
    pub(crate) fn ready(self, addresses: &[String], plugins: &[String]) {
        for address in addresses {
            self.say(&format!("listening on {address}"));
        }
        match (self, addresses) {
            (Self::Ready(said), _) => print(&said()),
            (Self::LinesAndHints, [address, ..]) => hint(address, plugins),
            (Self::LinesAndHints | Self::Lines, _) => {}
        }
    }
}

fn hint(address: &str, plugins: &[String]) {
    print("\nTry, in another terminal:");
    for name in plugins.iter().take(PLUGINS_SHOWN_MAX) {
        print(&format!("  curl {address}/{name}"));
    }
    print(&format!("  curl {address}/plugins"));
    print(&format!("  curl {address}/reload/all\nEnd with Ctrl-C."));
}

fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
