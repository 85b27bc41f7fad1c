//! Files in transfer on a disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::place::COST_LEAST;
use super::*;

/// A database and a directory that are gone in the end.
struct Setup(tempfile::TempDir);

const BYTES_MAX: u64 = 200_000;

impl Setup {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("files")
    }

    fn database(&self) -> Database {
        Database::open(&self.0.path().join("test.db"), &[MIGRATIONS]).unwrap()
    }

    fn open(&self) -> Files {
        let settings = Settings { directory: self.directory(), bytes_max: BYTES_MAX };
        // It blocks, which a runtime's own thread may not.
        let open = || Files::open(self.database(), settings).unwrap();
        std::thread::scope(|scope| scope.spawn(open).join()).unwrap()
    }

    /// The names in the directory.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.directory()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn new(uses: u32) -> NewFile {
    NewFile { name: name("a.txt"), lifetime: Duration::from_secs(3600), uses, by: 1 }
}

async fn put(files: &Files, content: &[u8], new: NewFile) -> Result<Stored, FileError> {
    let mut draft = files.begin().await?;
    for piece in content.chunks(1000) {
        draft = draft.add(piece).await?;
    }
    draft.keep(new, Box::new(|_| Ok(()))).await
}

/// What the file holds, if there is one.
async fn content(files: &Files, id: FileId) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut found = files.find(id, name("a.txt")).await.unwrap()?;
    let mut content = Vec::new();
    found.file.read_to_end(&mut content).unwrap();
    assert_eq!(found.bytes, content.len() as u64);
    let sum = ring::digest::digest(&ring::digest::SHA256, &content);
    assert_eq!(found.sha256, sum.as_ref());
    Some(content)
}

/// Removes what was sent away until nothing of it is left.
async fn tidy(files: &Files) {
    while files.place.taken() > 0 {
        let gone = files.place.next_gone().await;
        files.discard(gone).await;
    }
}

#[tokio::test]
async fn a_file_comes_back_also_after_a_restart_and_nobody_else_may_read_it() {
    let setup = Setup::new();
    let long: Vec<u8> = (0..BYTES_MAX).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let files = setup.open();
    assert!(!setup.directory().exists(), "made only when it is needed");
    let stored = put(&files, &long, new(5)).await.unwrap();
    let empty = put(&files, b"", new(5)).await.unwrap();
    drop(files);
    let files = setup.open();
    assert_eq!(content(&files, stored.id).await, Some(long));
    assert_eq!(content(&files, empty.id).await, Some(Vec::new()));
    assert!(files.find(stored.id, name("b.txt")).await.unwrap().is_none());
    assert_eq!(files.place.taken(), BYTES_MAX + COST_LEAST);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(setup.directory()), 0o700);
    assert_eq!(mode(setup.directory().join(stored.id.to_string())), 0o600);
}

#[tokio::test]
async fn a_file_goes_with_its_last_use() {
    let setup = Setup::new();
    let files = setup.open();
    let stored = put(&files, b"hello", new(2)).await.unwrap();
    assert!(files.spend(stored.id).await.unwrap());
    drop(files);
    let files = setup.open();
    let last = files.find(stored.id, name("a.txt")).await.unwrap();
    assert!(last.is_some() && files.spend(stored.id).await.unwrap());
    assert!(!files.spend(stored.id).await.unwrap());
    assert_eq!(content(&files, stored.id).await, None);
    tidy(&files).await;
    assert_eq!(setup.names(), [""; 0]);
    assert_eq!(files.database.read_now(rows::all).unwrap(), []);
}

#[tokio::test]
async fn uses_are_spent_once_however_many_ask() {
    let setup = Setup::new();
    let files = setup.open();
    let stored = put(&files, b"hello", new(3)).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let files = files.clone();
        asking.spawn(async move { files.spend(stored.id).await.unwrap() });
    }
    let spent = asking.join_all().await;
    assert_eq!(spent.into_iter().filter(|was| *was).count(), 3);
}

#[tokio::test]
async fn a_file_is_removed_by_its_whole_name() {
    let setup = Setup::new();
    let files = setup.open();
    let stored = put(&files, b"hello", new(2)).await.unwrap();
    assert!(!files.remove(stored.id, name("b.txt"), Box::new(|_| Ok(()))).await.unwrap());
    assert!(files.remove(stored.id, name("a.txt"), Box::new(|_| Ok(()))).await.unwrap());
    assert!(!files.remove(stored.id, name("a.txt"), Box::new(|_| Ok(()))).await.unwrap());
    tidy(&files).await;
    assert_eq!(setup.names(), [""; 0]);
}

#[tokio::test]
async fn a_file_ends_with_its_time() {
    let setup = Setup::new();
    let files = setup.open();
    let over = NewFile { lifetime: Duration::ZERO, ..new(5) };
    let stored = put(&files, b"hello", over).await.unwrap();
    let kept = put(&files, b"hello", new(5)).await.unwrap();
    assert_eq!(content(&files, stored.id).await, None);
    assert!(!files.spend(stored.id).await.unwrap());
    files.sweep().await.unwrap();
    let gone = files.place.next_gone().await;
    assert_eq!(gone.id, stored.id);
    files.discard(gone).await;
    assert_eq!(setup.names(), [kept.id.to_string()]);
    assert_eq!(files.place.taken(), COST_LEAST);
}

#[tokio::test]
async fn what_is_not_kept_leaves_nothing() {
    let setup = Setup::new();
    let files = setup.open();
    let too_long = put(&files, &vec![0; 200_001], new(5)).await;
    assert!(matches!(too_long, Err(FileError::TooLong { limit_bytes: BYTES_MAX })));
    let draft = files.begin().await.unwrap();
    let draft = draft.add(&[7; 100_000]).await.unwrap();
    assert_eq!(setup.names().len(), 1);
    assert_eq!(files.place.taken(), 100_000);
    drop(draft);
    assert_eq!(files.place.taken(), 0);
    assert_eq!(setup.names(), [""; 0]);
}

#[tokio::test]
async fn a_file_without_a_row_is_no_file() {
    let setup = Setup::new();
    let files = setup.open();
    let drop_table = |tx: &database::rusqlite::Connection| tx.execute_batch("DROP TABLE files");
    files.database.write(drop_table).await.unwrap();
    assert!(matches!(put(&files, b"hello", new(5)).await, Err(FileError::Database(_))));
    assert_eq!((setup.names(), files.place.taken()), (Vec::new(), 0));
}

#[tokio::test]
async fn all_files_together_take_no_more_than_there_is_space() {
    let setup = Setup::new();
    let files = setup.open();
    let mut drafts = Vec::new();
    let full = loop {
        match files.begin().await {
            Ok(draft) => drafts.push(draft),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, FileError::NoSpace));
    assert_eq!(drafts.len() as u64, SPACE_LEAST / COST_LEAST);
    let grows = drafts.pop().unwrap().add(&[0; 100_000]).await;
    assert!(matches!(grows, Err(FileError::NoSpace)));
    drafts.clear();
    put(&files, b"hello", new(5)).await.unwrap();
}

#[tokio::test]
async fn a_start_removes_what_a_crash_has_left_and_nothing_else() {
    let setup = Setup::new();
    let files = setup.open();
    let (kept, lost) =
        (put(&files, b"1", new(5)).await.unwrap(), put(&files, b"2", new(5)).await.unwrap());
    drop(files);
    let path = |name: &str| setup.directory().join(name);
    std::fs::remove_file(path(&lost.id.to_string())).unwrap();
    for left in [FileId::random().to_string(), format!("{}.part", FileId::random())] {
        std::fs::write(path(&left), "left").unwrap();
    }
    std::fs::write(path("notes.part"), "somebody's own").unwrap();
    let files = setup.open();
    let mut names = setup.names();
    names.sort();
    assert_eq!(names, [kept.id.to_string(), "notes.part".to_owned()]);
    assert_eq!(content(&files, lost.id).await, None);
    assert!(!files.spend(lost.id).await.unwrap(), "its row is gone too");
    assert_eq!(files.place.taken(), COST_LEAST);
}
