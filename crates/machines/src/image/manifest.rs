//! The manifest of an image, `image.toml`, as written.
//!
//! Invariant: what comes out names files that lie in the manifest's folder and have a sum.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::{HostKeyForm, Image, ImageError, Media};

/// Its name in an image's folder.
pub(super) const FILE: &str = "image.toml";
/// The largest that is read.
const BYTES_MAX: u64 = 64 * 1024;
const CMDLINE_CHARS_MAX: usize = 2048;
const DESCRIPTION_CHARS_MAX: usize = 500;
const FILES_MAX: usize = 16;
const MEMORY_MB_MAX: u32 = 1 << 20;

/// A manifest that makes sense.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) kind: Kind,
    pub(super) agent: bool,
    pub(super) host_key: HostKeyForm,
    pub(super) memory_mb_min: u32,
    /// File name to SHA-256, lower-case hexadecimal.
    pub(super) sums: BTreeMap<String, String>,
}

/// What is booted; names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Kernel { kernel: String, initrd: String, cmdline: String, iso: Option<String> },
    Iso(String),
    Disk { disk: String, nocloud: bool },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    description: String,
    kind: RawKind,
    kernel: Option<String>,
    initrd: Option<String>,
    cmdline: Option<String>,
    iso: Option<String>,
    disk: Option<String>,
    nocloud: Option<bool>,
    #[serde(default)]
    agent: bool,
    host_key: Option<RawHostKey>,
    memory_mb_min: u32,
    /// What it was made from; `images/build` looks at it, and nobody else.
    #[expect(dead_code, reason = "known, so that it is no mistake")]
    built_from: Option<String>,
    sha256: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Kernel,
    Iso,
    Disk,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawHostKey {
    Dropbear,
    Openssh,
}

/// Whether `name` can be an image's, and so a folder's.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-')
}

impl Kind {
    /// The word for it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "kernel",
            Self::Iso(_) => "iso",
            Self::Disk { .. } => "disk",
        }
    }

    /// The files that are booted from, and the ISO whose sum clients are told.
    pub(super) fn files(&self) -> Vec<&str> {
        match self {
            Self::Kernel { kernel, initrd, iso, .. } => [Some(kernel), Some(initrd), iso.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect(),
            Self::Iso(file) | Self::Disk { disk: file, .. } => vec![file],
        }
    }
}

impl Manifest {
    /// Reads that of the image in `folder`, whose name is `name`.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Self, ImageError> {
        let file = folder.join(FILE);
        let mut text = String::new();
        let read =
            File::open(&file).and_then(|open| open.take(BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ImageError::NotFound { name: name.to_owned(), manifest: file });
            }
            read => drop(read.map_err(ImageError::io("reading", &file))?),
        }
        if text.len() as u64 > BYTES_MAX {
            return Err(ImageError::Manifest {
                file,
                why: format!("it is larger than {BYTES_MAX} bytes"),
            });
        }
        let manifest = Self::parse(&text).and_then(|manifest| {
            if manifest.name == name {
                Ok(manifest)
            } else {
                Err(format!("name: must be that of its folder, {name:?}"))
            }
        });
        manifest.map_err(|why| ImageError::Manifest { file, why })
    }

    /// Understands the text of a manifest.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if !is_name(&raw.name) {
            return Err(ImageError::Name(raw.name).to_string());
        }
        if raw.description.chars().count() > DESCRIPTION_CHARS_MAX
            || raw.description.contains(char::is_control)
        {
            return Err(format!(
                "description: at most {DESCRIPTION_CHARS_MAX} characters on one line"
            ));
        }
        if !(16..=MEMORY_MB_MAX).contains(&raw.memory_mb_min) {
            return Err(format!("memory_mb_min: must be 16 to {MEMORY_MB_MAX}"));
        }
        let host_key = match (raw.agent, &raw.host_key) {
            (true, None) => {
                return Err(
                    "host_key: an agent must be told \"dropbear\" or \"openssh\"".to_owned()
                );
            }
            (_, Some(RawHostKey::Dropbear)) => HostKeyForm::Dropbear,
            (_, Some(RawHostKey::Openssh) | None) => HostKeyForm::OpenSsh,
        };
        let sums = check_sums(&raw.sha256)?;
        let kind = raw.kind()?;
        if let Some(file) = kind.files().into_iter().find(|file| !sums.contains_key(*file)) {
            return Err(format!("sha256: the sum of {file:?} is missing"));
        }
        let Raw { name, description, agent, memory_mb_min, .. } = raw;
        Ok(Self { name, description, kind, agent, host_key, memory_mb_min, sums })
    }

    /// The image, with its files in `folder`, and of which `sha256` is told to clients.
    pub(super) fn image(&self, folder: &Path, sha256: String) -> Image {
        let media = match &self.kind {
            Kind::Kernel { kernel, initrd, cmdline, .. } => Media::Kernel {
                kernel: folder.join(kernel),
                initrd: folder.join(initrd),
                cmdline: cmdline.clone(),
            },
            Kind::Iso(iso) => Media::Iso(folder.join(iso)),
            Kind::Disk { disk, nocloud } => {
                Media::Disk { disk: folder.join(disk), nocloud: *nocloud }
            }
        };
        Image {
            name: self.name.clone(),
            media,
            has_agent: self.agent,
            host_key: self.host_key,
            memory_mb_min: self.memory_mb_min,
            sha256,
        }
    }
}

impl Raw {
    /// What is booted: each kind has its own keys. An ISO may lie beside any of them.
    fn kind(&self) -> Result<Kind, String> {
        let needed = |key: &str, value: &Option<String>| {
            let file = value.clone().ok_or_else(|| format!("{key}: is missing"))?;
            check_file(key, &file).map(|()| file)
        };
        let of_others: &[(&str, bool)] = match self.kind {
            RawKind::Kernel => {
                &[("disk", self.disk.is_some()), ("nocloud", self.nocloud.is_some())]
            }
            RawKind::Iso | RawKind::Disk => &[
                ("kernel", self.kernel.is_some()),
                ("initrd", self.initrd.is_some()),
                ("cmdline", self.cmdline.is_some()),
                ("disk", self.kind == RawKind::Iso && self.disk.is_some()),
                ("nocloud", self.kind == RawKind::Iso && self.nocloud.is_some()),
            ],
        };
        if let Some((key, _)) = of_others.iter().find(|(_, given)| *given) {
            return Err(format!("{key}: makes no sense with this `kind`"));
        }
        if let Some(iso) = &self.iso {
            check_file("iso", iso)?;
        }
        Ok(match self.kind {
            RawKind::Iso => Kind::Iso(needed("iso", &self.iso)?),
            RawKind::Disk => Kind::Disk {
                disk: needed("disk", &self.disk)?,
                nocloud: self.nocloud.unwrap_or(false),
            },
            RawKind::Kernel => Kind::Kernel {
                kernel: needed("kernel", &self.kernel)?,
                initrd: needed("initrd", &self.initrd)?,
                cmdline: check_cmdline(self.cmdline.clone().unwrap_or_default())?,
                iso: self.iso.clone(),
            },
        })
    }
}

fn check_cmdline(cmdline: String) -> Result<String, String> {
    if cmdline.len() <= CMDLINE_CHARS_MAX
        && cmdline.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    {
        Ok(cmdline)
    } else {
        Err(format!("cmdline: at most {CMDLINE_CHARS_MAX} printable ASCII characters"))
    }
}

/// A file of an image lies in its folder, and is neither hidden nor the manifest.
fn check_file(key: &str, file: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=128).contains(&file.len())
        && file.chars().all(plain)
        && !file.starts_with('.')
        && file != FILE
    {
        Ok(())
    } else {
        Err(format!(
            "{key}: {file:?} cannot be a file of an image: letters, digits, and `-_.`, without a folder"
        ))
    }
}

fn check_sums(sums: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if sums.len() > FILES_MAX {
        return Err(format!("sha256: at most {FILES_MAX} files"));
    }
    for (file, sum) in sums {
        check_file("sha256", file)?;
        if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(format!("sha256: that of {file:?} is not 64 digits 0-9a-f"));
        }
    }
    Ok(sums.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn with(lines: &str, sums: &[&str]) -> String {
        let sums: String = sums.iter().map(|file| format!("{file:?} = {SUM:?}\n")).collect();
        format!("name = \"a\"\nmemory_mb_min = 64\n{lines}\n[sha256]\n{sums}")
    }

    #[track_caller]
    fn check_refused(text: &str, words: &str) {
        let why = Manifest::parse(text).unwrap_err();
        assert!(why.contains(words), "{why}");
    }

    #[test]
    fn each_kind_has_its_keys() {
        let kernel = "kind='kernel'\nkernel='k'\ninitrd='i'\ncmdline='quiet'\niso='c.iso'\nagent=true\nhost_key='dropbear'";
        let manifest = Manifest::parse(&with(kernel, &["k", "i", "c.iso"])).unwrap();
        let folder = Path::new("/images/a");
        let image = manifest.image(folder, SUM.to_owned());
        let media = Media::Kernel {
            kernel: folder.join("k"),
            initrd: folder.join("i"),
            cmdline: "quiet".to_owned(),
        };
        assert_eq!(
            (image.media, image.has_agent, image.host_key),
            (media, true, HostKeyForm::Dropbear)
        );
        let iso = Manifest::parse(&with("kind='iso'\niso='c.iso'", &["c.iso"])).unwrap();
        assert_eq!(iso.image(folder, String::new()).media, Media::Iso(folder.join("c.iso")));
        let disk = Manifest::parse(&with("kind='disk'\ndisk='d'\nnocloud=true", &["d"])).unwrap();
        assert_eq!(disk.kind, Kind::Disk { disk: "d".to_owned(), nocloud: true });
    }

    #[test]
    fn a_mistake_is_named_by_its_key() {
        check_refused(&with("kind='iso'", &[]), "iso: is missing");
        check_refused(&with("kind='tape'", &[]), "kind");
        check_refused(&with("kind='iso'\niso='c'", &[]), "sha256: the sum of \"c\" is missing");
        check_refused(&with("kind='iso'\niso='c'\nkernel='k'", &["c"]), "kernel: makes no sense");
        check_refused(&with("kind='iso'\niso='c'\ncolour='red'", &["c"]), "unknown field `colour`");
        check_refused(&with("kind='iso'\niso='c'\nagent=true", &["c"]), "host_key: ");
        check_refused(&with("kind='iso'\niso='c'\nmemory_mb_min=1", &["c"]), "memory_mb_min");
        check_refused(
            &with("kind='iso'\niso='c'", &["c"]).replace("64\n", "4\n"),
            "memory_mb_min: ",
        );
        check_refused(
            &with("kind='iso'\niso='c'", &["c"]).replace("abc", "ABC"),
            "sha256: that of \"c\"",
        );
        check_refused(
            &with("kind='iso'\niso='c'", &["c"]).replace("\"a\"", "\"a/b\""),
            "image's name",
        );
        check_refused("kind='iso'", "missing field `name`");
    }

    #[test]
    fn files_lie_in_the_folder() {
        for file in ["../c", "/c", "b/c", ".c", "..", "", "image.toml", "a\nb"] {
            check_refused(&with(&format!("kind='iso'\niso={file:?}"), &["c"]), "iso: ");
        }
        check_refused(&with("kind='iso'\niso='c'", &["c", "../d"]), "sha256: \"../d\"");
    }

    #[test]
    fn a_command_line_is_one_line() {
        check_refused(
            &with("kind='kernel'\nkernel='k'\ninitrd='i'\ncmdline=\"a\\nb\"", &["k", "i"]),
            "cmdline: ",
        );
    }
}
