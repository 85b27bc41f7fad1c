//! Whether KVM works here: found out by running a guest on it for a moment.
//!
//! `/dev/kvm` may exist, open, make machines, and then hang or abort when a processor is to run. So a processor like the
//! machines' is given four instructions whose effect can be seen from outside, in a process that can be killed.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::process::{self, Launch, User};
use super::program::Program;

/// How a guest's code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation, in software.
    Tcg,
}

/// Which way is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// KVM where it works, else translation.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Translation, whatever there is.
    Qemu,
}

/// How long the guest may take; in software it takes a tenth of a second with all around it.
const LIMIT: Duration = Duration::from_secs(3);
/// A firmware's size must be a multiple of this.
const FIRMWARE_BYTES: usize = 64 * 1024;
/// Where a processor starts, counted from the firmware's end.
const RESET_VECTOR_FROM_END: usize = 16;
/// `mov al, 16; out 0xf4, al; hlt; jmp` back to the halt.
const CODE: [u8; 7] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
/// What QEMU exits with when 16 is written to the port: twice that, plus one.
const CODE_SEEN: i32 = 33;

/// Tries an accelerator; files go to `folder`.
///
/// # Errors
/// Why it does not work, in words.
pub(super) async fn probe(
    program: &Program,
    accelerator: Accelerator,
    folder: &Path,
    user: Option<User>,
) -> Result<(), String> {
    let firmware = folder.join("probe.bin");
    std::fs::write(&firmware, code())
        .map_err(|error| format!("writing {}: {error}", firmware.display()))?;
    let name = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    };
    let path = firmware.display().to_string();
    let arguments: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        &program.machine,
        "-accel",
        name,
        "-cpu",
        "max",
        "-m",
        "16",
        "-bios",
        &path,
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
    ]
    .map(str::to_owned)
    .into();
    let launch = Launch { program: &program.path, arguments: &arguments, directory: folder, user };
    let result = process::exit_code(launch, LIMIT).await;
    // What is left is overwritten by the next.
    let _ = std::fs::remove_file(&firmware);
    judge(result)
}

/// The host's processor as guests on KVM see it.
pub(super) fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = told.split("\n\n").next().unwrap_or_default();
    let of_guests =
        |line: &&str| ["model name", "stepping", "flags"].iter().any(|name| line.starts_with(name));
    first.lines().filter(of_guests).collect::<Vec<_>>().join("\n")
}

fn judge(result: io::Result<(Option<i32>, String, String)>) -> Result<(), String> {
    match result {
        Ok((Some(CODE_SEEN), ..)) => Ok(()),
        Ok((code, _, said)) => {
            let ended = code.map_or_else(
                || "it crashed".to_owned(),
                |code| format!("it exited with code {code}"),
            );
            let last = said.lines().last().unwrap_or_default();
            Err(format!("a trial guest did not run: {ended}: {last}"))
        }
        Err(error) => Err(format!("a trial guest did not run: {error}")),
    }
}

fn code() -> Vec<u8> {
    let mut firmware = vec![0; FIRMWARE_BYTES];
    let start = FIRMWARE_BYTES - RESET_VECTOR_FROM_END;
    firmware[start..start + CODE.len()].copy_from_slice(&CODE);
    firmware
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(result: io::Result<(Option<i32>, &str)>, expected: Result<(), &str>) {
        let result = result.map(|(code, said)| (code, String::new(), said.to_owned()));
        assert_eq!(judge(result), expected.map_err(str::to_owned));
    }

    #[test]
    fn only_the_guests_own_sign_is_believed() {
        check(Ok((Some(33), "")), Ok(()));
        check(Ok((Some(0), "")), Err("a trial guest did not run: it exited with code 0: "));
        check(Ok((None, "MSR\nAborted")), Err("a trial guest did not run: it crashed: Aborted"));
        check(
            Err(io::Error::other("not done within 3 s")),
            Err("a trial guest did not run: not done within 3 s"),
        );
    }
}
