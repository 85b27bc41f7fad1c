//! Templates on disk: a guest's memory and its devices' state, and what they were made from.
//!
//! Invariant: a template is used only if its manifest, which is written last, says that it was made from exactly what a
//! machine is to be made from now, and its files are byte for byte those that were written. Anything else is removed.
//!
//! Not here: how a template is made, and what is made of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use super::command::{OVERLAY, SEED, TEMPLATE_MEMORY};
use super::program::stamp;

/// Changes when templates of older servers cannot be used any more.
const FORMAT: u32 = 2;
/// The manifest's name.
const MANIFEST: &str = "snapshot.json";
/// The devices' state.
pub(super) const DEVICES: &str = "devices";
/// The most that a devices' state may be; it is about 400,000 bytes.
pub(super) const DEVICES_BYTES_MAX: u64 = 64 << 20;
/// The files that a clone opens by itself, as far as there are any.
const OPENED: [&str; 3] = [TEMPLATE_MEMORY, OVERLAY, SEED];
/// How much is read at once.
const PART_BYTES: usize = 1 << 20;

/// What a template is made from. Machines that are made from the same can be made from the same template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// The form of the files.
    pub(super) format: u32,
    /// The image's name.
    pub(super) image: String,
    /// What the image's manifest says that it holds.
    pub(super) image_sha256: String,
    /// Changes when a file of the image is replaced or written.
    pub(super) image_stamps: Vec<String>,
    /// What QEMU says of itself.
    pub(super) program: String,
    /// Changes when QEMU is replaced.
    pub(super) program_stamp: String,
    /// The template's arguments, whose paths in its own folder are relative.
    pub(super) arguments: Vec<String>,
    /// The host's processor, where guests run on it.
    pub(super) processor: String,
    pub(super) memory_mb: u32,
    pub(super) vcpus: u32,
    /// The least size of its disk, where it has one; 0 for the image's own.
    pub(super) disk_mb: u32,
}

impl Recipe {
    pub(super) const FORMAT: u32 = FORMAT;

    /// Names the template's folder.
    pub(super) fn key(&self) -> io::Result<String> {
        let text = serde_json::to_vec(self)?;
        Ok(hex(digest(&SHA256, &text).as_ref())[..32].to_owned())
    }

    #[cfg(test)]
    pub(super) fn of(image: &str) -> Self {
        Self {
            format: FORMAT,
            image: image.into(),
            image_sha256: "0".into(),
            image_stamps: vec![],
            program: "QEMU".into(),
            program_stamp: String::new(),
            arguments: vec![],
            processor: String::new(),
            memory_mb: 256,
            vcpus: 1,
            disk_mb: 0,
        }
    }

    /// Whether a template that was made from `other` is of no use once there is one made from this.
    fn replaces(&self, other: &Self) -> bool {
        self.image == other.image && self.memory_mb == other.memory_mb && self.vcpus == other.vcpus
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    recipe: Recipe,
    devices_sha256: String,
    /// Of those of [`OPENED`] that there are.
    sha256: BTreeMap<String, String>,
}

/// A template that was found good.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) folder: PathBuf,
    /// The devices' state.
    pub(super) devices: Arc<[u8]>,
    /// Of the big files, as they were when they were found good.
    stamps: Vec<String>,
}

impl Template {
    /// Completes a template whose files have been written: `folder` becomes `target`. Slow.
    /// `mode` is the files' own: who runs machines must be able to open them.
    pub(super) fn complete(
        folder: &Path,
        target: &Path,
        recipe: &Recipe,
        mode: u32,
    ) -> io::Result<Self> {
        let devices = fs::read(folder.join(DEVICES))?;
        let mut digests = BTreeMap::new();
        for name in opened(folder) {
            digests.insert(name.to_owned(), sha256(&folder.join(name))?);
        }
        for name in digests.keys().map(String::as_str).chain([DEVICES]) {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode))?;
        }
        let manifest = Manifest {
            recipe: recipe.clone(),
            devices_sha256: hex(digest(&SHA256, &devices).as_ref()),
            sha256: digests,
        };
        fs::write(folder.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        if target.exists() {
            fs::remove_dir_all(target)?;
        }
        fs::rename(folder, target)?;
        Ok(Self { stamps: stamps(target)?, folder: target.to_owned(), devices: devices.into() })
    }

    /// Loads a template if it is whole and made from `recipe`. Slow: reads everything.
    ///
    /// # Errors
    /// Why it cannot be used, in words; `NotFound` where there is none.
    pub(super) fn load(folder: &Path, recipe: &Recipe) -> io::Result<Self> {
        let manifest = fs::read(folder.join(MANIFEST))?;
        let manifest: Manifest = serde_json::from_slice(&manifest)?;
        if manifest.recipe != *recipe {
            return Err(io::Error::other("it was made from something else"));
        }
        // Before reading, so that what is written meanwhile is noticed later.
        let stamps = stamps(folder)?;
        let devices = folder.join(DEVICES);
        if fs::metadata(&devices)?.len() > DEVICES_BYTES_MAX {
            return Err(io::Error::other("its devices' state is too long"));
        }
        let devices = fs::read(devices)?;
        let differs =
            |name: &str| Err(io::Error::other(format!("its file {name} is not as it was written")));
        if hex(digest(&SHA256, &devices).as_ref()) != manifest.devices_sha256 {
            return differs(DEVICES);
        }
        for name in opened(folder) {
            if manifest.sha256.get(name) != Some(&sha256(&folder.join(name))?) {
                return differs(name);
            }
        }
        match manifest.sha256.keys().find(|name| !folder.join(name).exists()) {
            Some(missing) => Err(io::Error::other(format!("its file {missing} is missing"))),
            None => Ok(Self { folder: folder.to_owned(), devices: devices.into(), stamps }),
        }
    }

    /// Notes that a machine is made from it: what is used longest ago makes room for others.
    pub(super) fn is_used(&self) {
        let noted = File::open(self.folder.join(MANIFEST))
            .and_then(|manifest| manifest.set_modified(SystemTime::now()));
        if let Err(error) = noted {
            tracing::debug!(snapshot = %self.folder.display(), %error, "its use could not be noted");
        }
    }

    /// Whether its files are still those that were found good. Quick: looks at sizes, times and inodes.
    pub(super) fn is_untouched(&self) -> bool {
        stamps(&self.folder).is_ok_and(|stamps| stamps == self.stamps)
    }
}

/// The names of all templates in `parent`, the one first that was used longest ago.
pub(super) fn by_use(parent: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // What has no manifest is no template, and a hidden folder not one yet.
        let used = fs::metadata(entry.path().join(MANIFEST)).and_then(|it| it.modified());
        if let (Ok(used), false) = (used, name.starts_with('.')) {
            found.push((used, name));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Gives a template's files to who runs the server, so that no machine can change them. Its memory stays as it is unless
/// `with_memory`: before QEMU could open it read-only, who runs machines must be able to write it.
pub(super) fn take_ownership(folder: &Path, with_memory: bool) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    chown(folder, Some(uid), Some(gid))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if with_memory || entry.file_name() != TEMPLATE_MEMORY {
            chown(entry.path(), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// Removes templates that `recipe` replaces, and whatever is no template. Machines that run on them are not harmed: what
/// they have open stays until they close it.
pub(super) fn remove_replaced(parent: &Path, recipe: &Recipe) -> io::Result<()> {
    let key = recipe.key()?;
    for entry in fs::read_dir(parent)? {
        let folder = entry?.path();
        if folder.file_name().is_some_and(|name| *name == *key) {
            continue;
        }
        let manifest = fs::read(folder.join(MANIFEST)).ok();
        let manifest = manifest.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
        if manifest.is_some_and(|manifest| recipe.replaces(&manifest.recipe)) {
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

/// Those of [`OPENED`] that there are.
fn opened(folder: &Path) -> impl Iterator<Item = &'static str> {
    OPENED.into_iter().filter(|name| folder.join(name).exists())
}

fn stamps(folder: &Path) -> io::Result<Vec<String>> {
    opened(folder).map(|name| stamp(&folder.join(name))).collect()
}

/// The digest of a file's length and of all that is not zero in it. Holes are skipped: a guest's memory is mostly holes.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut context = Context::new(&SHA256);
    context.update(&length.to_le_bytes());
    let mut part = vec![0; PART_BYTES];
    let mut offset = 0;
    while let Some(start) = next_data(&file, offset)? {
        // Always whole parts, counted from the beginning, so that the digest does not depend on where holes end.
        offset = start - start % PART_BYTES as u64;
        file.seek(SeekFrom::Start(offset))?;
        let count = read_full(&mut file, &mut part)?;
        if part[..count].iter().any(|&byte| byte != 0) {
            context.update(&offset.to_le_bytes());
            context.update(&part[..count]);
        }
        offset += PART_BYTES as u64;
        if offset >= length {
            break;
        }
    }
    Ok(hex(context.finish().as_ref()))
}

/// Where the next data are at or after `offset`.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some(start)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_full(file: &mut File, part: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < part.len() {
        match file.read(&mut part[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(image: &str, memory_mb: u32) -> Recipe {
        Recipe { memory_mb, ..Recipe::of(image) }
    }

    fn make(parent: &Path, recipe: &Recipe) -> Template {
        let building = parent.join(".building");
        fs::create_dir(&building).unwrap();
        let memory = File::create(building.join(TEMPLATE_MEMORY)).unwrap();
        memory.set_len(8 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&memory, b"guest", 5 << 20).unwrap();
        fs::write(building.join(DEVICES), b"devices").unwrap();
        fs::write(building.join(OVERLAY), b"disk").unwrap();
        Template::complete(&building, &parent.join(recipe.key().unwrap()), recipe, 0o444).unwrap()
    }

    /// What is done to a template, and what is said of it when it is loaded.
    fn check(spoil: impl Fn(&Path), expected: Result<(), &str>) {
        let parent = tempfile::tempdir().unwrap();
        let recipe = recipe("small", 256);
        let folder = make(parent.path(), &recipe).folder;
        for name in [DEVICES, TEMPLATE_MEMORY, OVERLAY, MANIFEST] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        spoil(&folder);
        let loaded = Template::load(&folder, &recipe).map(drop).map_err(|error| error.to_string());
        match expected {
            Ok(()) => assert_eq!(loaded, Ok(())),
            Err(part) => assert!(
                loaded.as_ref().is_err_and(|why| why.contains(part)),
                "{loaded:?}, not {part}"
            ),
        }
    }

    fn write(path: PathBuf, offset: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    }

    #[test]
    fn only_a_whole_template_is_used() {
        check(|_| (), Ok(()));
        check(
            |folder| write(folder.join(TEMPLATE_MEMORY), 5 << 20, b"Guest"),
            Err("memory is not as it was"),
        );
        check(
            |folder| write(folder.join(TEMPLATE_MEMORY), 1 << 20, b"x"),
            Err("memory is not as it was"),
        );
        check(
            |folder| write(folder.join(TEMPLATE_MEMORY), 8 << 20, b"\0"),
            Err("memory is not as it was"),
        );
        check(|folder| write(folder.join(DEVICES), 0, b"D"), Err("devices is not as it was"));
        check(
            |folder| fs::remove_file(folder.join(TEMPLATE_MEMORY)).unwrap(),
            Err("memory is missing"),
        );
        check(|folder| write(folder.join(OVERLAY), 0, b"D"), Err("disk.qcow2 is not as"));
        check(
            |folder| fs::remove_file(folder.join(OVERLAY)).unwrap(),
            Err("disk.qcow2 is missing"),
        );
        check(|folder| fs::write(folder.join(SEED), "new").unwrap(), Err("seed.iso is not as"));
        check(|folder| fs::remove_file(folder.join(MANIFEST)).unwrap(), Err("No such file"));
        check(|folder| fs::write(folder.join(MANIFEST), "{\"recipe\": ").unwrap(), Err("EOF"));
        check(|folder| write(folder.join(DEVICES), DEVICES_BYTES_MAX, b"x"), Err("too long"));
        // Zeros written into a hole are the same memory.
        check(|folder| write(folder.join(TEMPLATE_MEMORY), 1 << 20, b"\0"), Ok(()));
    }

    #[test]
    fn a_template_of_something_else_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let folder = make(parent.path(), &recipe("small", 256)).folder;
        let error = Template::load(&folder, &recipe("small", 512)).unwrap_err();
        assert_eq!(error.to_string(), "it was made from something else");
    }

    #[test]
    fn a_file_that_is_touched_later_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let template = make(parent.path(), &recipe("small", 256));
        assert!(template.is_untouched());
        let memory = template.folder.join(TEMPLATE_MEMORY);
        fs::set_permissions(&memory, fs::Permissions::from_mode(0o644)).unwrap();
        write(memory, 5 << 20, b"Guest");
        assert!(!template.is_untouched());
    }

    #[test]
    fn templates_of_older_images_go_and_of_other_sizes_stay() {
        let parent = tempfile::tempdir().unwrap();
        let newer = Recipe { image_sha256: "1".into(), ..recipe("small", 256) };
        let made: Vec<PathBuf> =
            [&recipe("small", 256), &recipe("small", 512), &recipe("full", 256), &newer]
                .map(|recipe| make(parent.path(), recipe).folder)
                .into();
        remove_replaced(parent.path(), &newer).unwrap();
        let left: Vec<bool> = made.iter().map(|folder| folder.exists()).collect();
        assert_eq!(left, [false, true, true, true]);
    }
}
