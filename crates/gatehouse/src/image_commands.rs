//! `gatehouse image`: the images that machines are started from, in their folder. No server is needed.
//!
//! Exit codes: 1 for what cannot be done, 2 for an image that is not what it should be.
//! Not here: what an image is (`machines::image`) and how one is made (`images/` of the repository).

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use machines::image::{Checked, FileState, ImageError, Images, Listed, Sources};
use serde_json::{Value, json};
use server::config::containers::usual_state;

/// Arguments of `gatehouse image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The folder of the images [default: /var/lib/gatehouse/machines/images for root, else
    /// gatehouse/machines/images in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", global = true, env = "GATEHOUSE_IMAGES")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Make an image from Debian's packages; takes minutes and the network
    Build {
        /// Which: small or debian
        name: String,
        /// Build from these recipes instead of those that this program carries along
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
        /// Leave an image that was made from the same recipes as it is
        #[arg(long)]
        if_changed: bool,
    },
    /// List the images
    List,
    /// Sum all files of an image, and tell which are not what its manifest says
    Verify {
        /// Which; all of them without it
        name: Option<String>,
    },
    /// Remove an image from which no machine runs
    Remove {
        /// Which
        name: String,
    },
}

/// Why a command did not do what it should.
#[derive(Debug)]
enum Failure {
    Image(ImageError),
    Damaged,
    Output(io::Error),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl ImageArgs {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        let mut out = io::stdout().lock();
        let (text, code) = match self.outcome(&mut out) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Damaged) => return ExitCode::from(2),
            Err(Failure::Image(error)) => (error.to_string(), 1),
            Err(Failure::Output(error)) => (error.to_string(), 1),
        };
        tell(&format!("gatehouse: {text}"));
        ExitCode::from(code)
    }

    fn outcome(self, out: &mut impl Write) -> Result<(), Failure> {
        let directory = self.directory.unwrap_or_else(|| usual_state().join("images"));
        // Machines are started from elsewhere than here.
        let directory = std::path::absolute(directory).map_err(Failure::Output)?;
        let images = Images::open(directory);
        let mut print = |text: &str| out.write_all(text.as_bytes()).map_err(Failure::Output);
        match self.command {
            ImageCommand::Build { name, from, if_changed } => {
                let sources = from.map_or(Sources::Embedded, Sources::Folder);
                let image = images.build(&name, &sources, if_changed, &mut tell)?;
                let folder = images.directory().join(&name);
                let value = json!({"name": name, "sha256": image.sha256, "directory": folder});
                print(&if self.json {
                    format!("{value}\n")
                } else {
                    format!("{}\n", folder.display())
                })
            }
            ImageCommand::List => {
                let listed = images.list()?;
                print(&if self.json {
                    as_json(&listed)
                } else {
                    as_lines(&listed, io::stdout().is_terminal())
                })
            }
            ImageCommand::Verify { name } => {
                let names = match name {
                    Some(name) => vec![name],
                    None => images.list()?.into_iter().map(|image| image.name).collect(),
                };
                let mut checked = Vec::new();
                for name in names {
                    checked
                        .extend(images.verify(&name)?.into_iter().map(|file| (name.clone(), file)));
                }
                print(&if self.json {
                    checks_as_json(&checked)
                } else {
                    checks_as_lines(&checked)
                })?;
                let good = checked.iter().all(|(_, file)| file.state == FileState::Good);
                if good { Ok(()) } else { Err(Failure::Damaged) }
            }
            ImageCommand::Remove { name } => {
                images.remove(&name, machines::image::runs_from)?;
                if self.json { print(&format!("{}\n", json!({"removed": name}))) } else { Ok(()) }
            }
        }
    }
}

/// A line for whoever called. That nobody reads it is no reason to fail.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn as_json(listed: &[Listed]) -> String {
    let images: Vec<Value> = listed
        .iter()
        .map(|image| {
            json!({
                "name": image.name,
                "kind": image.kind,
                "agent": image.has_agent,
                "bytes": image.bytes,
                "description": image.description,
                "problem": image.problem,
            })
        })
        .collect();
    format!("{}\n", Value::from(images))
}

/// Columns under a header for people, tabs alone for programs.
fn as_lines(listed: &[Listed], for_people: bool) -> String {
    let mut text = String::new();
    if for_people {
        text.push_str(&format!("{:<16}{:<8}{:>8}  {}\n", "NAME", "KIND", "MIB", "DESCRIPTION"));
    }
    for image in listed {
        let what = image
            .problem
            .as_ref()
            .map_or_else(|| image.description.clone(), |why| format!("cannot be used: {why}"));
        let what = what.replace(char::is_control, " ");
        let (name, kind, mib) = (&image.name, &image.kind, image.bytes >> 20);
        text.push_str(&if for_people {
            format!("{name:<16}{kind:<8}{mib:>8}  {what}\n")
        } else {
            format!("{name}\t{kind}\t{mib}\t{what}\n")
        });
    }
    text
}

fn checks_as_json(checked: &[(String, Checked)]) -> String {
    let files: Vec<Value> = checked
        .iter()
        .map(|(image, file)| json!({"image": image, "file": file.file, "good": file.state == FileState::Good, "state": word(&file.state)}))
        .collect();
    format!("{}\n", Value::from(files))
}

fn checks_as_lines(checked: &[(String, Checked)]) -> String {
    checked
        .iter()
        .map(|(image, file)| format!("{image}/{}: {}\n", file.file, word(&file.state)))
        .collect()
}

fn word(state: &FileState) -> String {
    match state {
        FileState::Good => "good".to_owned(),
        FileState::Differs => "is not what image.toml says; build the image again".to_owned(),
        FileState::Unreadable(why) => format!("cannot be read: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<Listed> {
        let good = Listed {
            name: "small".to_owned(),
            kind: "kernel".to_owned(),
            description: "in memory".to_owned(),
            has_agent: true,
            bytes: 80 << 20,
            problem: None,
        };
        let bad = Listed {
            name: "b".to_owned(),
            kind: String::new(),
            problem: Some("a\nb".to_owned()),
            ..good.clone()
        };
        vec![good, bad]
    }

    #[test]
    fn images_are_columns_for_people_and_tabs_for_programs() {
        let people = as_lines(&images(), true);
        assert!(people.starts_with("NAME            KIND         MIB  DESCRIPTION\nsmall           kernel        80  in memory\n"), "{people}");
        assert_eq!(
            as_lines(&images(), false),
            "small\tkernel\t80\tin memory\nb\t\t80\tcannot be used: a b\n"
        );
    }

    #[test]
    fn images_are_one_json_value() {
        let value: Value = serde_json::from_str(&as_json(&images())).unwrap();
        assert_eq!((&value[0]["agent"], &value[1]["problem"]), (&json!(true), &json!("a\nb")));
    }

    fn run(directory: &std::path::Path, command: ImageCommand) -> (Result<(), Failure>, String) {
        let mut out = Vec::new();
        let arguments = ImageArgs { directory: Some(directory.to_owned()), json: false, command };
        let done = arguments.outcome(&mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_damaged_image_is_told_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("a");
        std::fs::create_dir(&image).unwrap();
        std::fs::write(image.join("c"), "other").unwrap();
        let manifest = format!(
            "name='a'\nkind='iso'\niso='c'\nmemory_mb_min=64\n[sha256]\nc='{}'\n",
            "0".repeat(64)
        );
        std::fs::write(image.join("image.toml"), manifest).unwrap();
        let (done, text) = run(folder.path(), ImageCommand::Verify { name: None });
        assert!(
            matches!(done, Err(Failure::Damaged)) && text.starts_with("a/c: is not what"),
            "{text}"
        );
        let (done, _) = run(folder.path(), ImageCommand::Remove { name: "a".to_owned() });
        assert!(done.is_ok() && !image.exists());
        let (done, _) = run(folder.path(), ImageCommand::Verify { name: Some("a".to_owned()) });
        assert!(matches!(done, Err(Failure::Image(ImageError::NotFound { .. }))));
    }
}
