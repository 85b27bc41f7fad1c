//! Images in a folder of their own.

use super::*;

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A folder with the image `a`: an ISO of the bytes `abc`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a");
    fs::create_dir(&image).unwrap();
    fs::write(image.join("c.iso"), "abc").unwrap();
    let manifest = format!(
        "name='a'\nkind='iso'\niso='c.iso'\nmemory_mb_min=64\ndescription='d'\n[sha256]\n\"c.iso\"='{ABC}'\n"
    );
    fs::write(image.join("image.toml"), manifest).unwrap();
    folder
}

#[test]
fn an_image_is_what_its_manifest_says() {
    let folder = folder();
    let images = Images::open(folder.path());
    let image = images.get("a").unwrap();
    assert_eq!(
        (image.sha256.as_str(), &image.media),
        (ABC, &Media::Iso(folder.path().join("a/c.iso")))
    );
    // Changed while the server runs, and not even in size.
    fs::write(folder.path().join("a/c.iso"), "abd").unwrap();
    let error = images.get("a").unwrap_err();
    assert!(
        matches!(&error, ImageError::Changed { name, file } if name == "a" && file == "c.iso"),
        "{error}"
    );
    fs::write(folder.path().join("a/c.iso"), "abc").unwrap();
    assert!(images.get("a").is_ok());
    fs::remove_file(folder.path().join("a/c.iso")).unwrap();
    assert!(matches!(images.get("a"), Err(ImageError::Io { .. })));
}

#[test]
fn sums_are_remembered_beside_the_image() {
    let folder = folder();
    Images::open(folder.path()).get("a").unwrap();
    let kept = fs::read_to_string(folder.path().join("a/.sums")).unwrap();
    assert!(kept.contains(ABC), "{kept}");
    // What is remembered is believed as long as the file is untouched.
    fs::write(folder.path().join("a/.sums"), kept.replace(ABC, &"0".repeat(64))).unwrap();
    assert!(matches!(Images::open(folder.path()).get("a"), Err(ImageError::Changed { .. })));
}

#[test]
fn a_name_is_no_path() {
    let folder = folder();
    let images = Images::open(folder.path().join("a"));
    for name in ["../a", "", ".", "..", "a/b", "A", "-a"] {
        assert!(matches!(images.get(name), Err(ImageError::Name(_))), "{name}");
        assert!(matches!(images.remove(name, |_| false), Err(ImageError::Name(_))), "{name}");
    }
    assert!(matches!(images.get("b"), Err(ImageError::NotFound { .. })));
}

#[test]
fn a_manifest_is_of_its_folder() {
    let folder = folder();
    fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    let error = Images::open(folder.path()).get("b").unwrap_err();
    assert!(error.to_string().contains("b/image.toml: name: "), "{error}");
}

#[test]
fn verifying_tells_which_file_differs() {
    let folder = folder();
    let images = Images::open(folder.path());
    let check = |expected: &FileState| {
        let found = images.verify("a").unwrap();
        assert_eq!(
            found.iter().map(|f| (f.file.as_str(), &f.state)).collect::<Vec<_>>(),
            [("c.iso", expected)]
        );
    };
    check(&FileState::Good);
    fs::write(folder.path().join("a/c.iso"), "abd").unwrap();
    check(&FileState::Differs);
    fs::remove_file(folder.path().join("a/c.iso")).unwrap();
    assert!(matches!(images.verify("a").unwrap()[0].state, FileState::Unreadable(_)));
}

#[test]
fn the_list_has_also_what_cannot_be_used() {
    let folder = folder();
    let images = Images::open(folder.path());
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("b/image.toml"), "name='b'").unwrap();
    fs::create_dir(folder.path().join(".building-c")).unwrap();
    fs::create_dir(folder.path().join("no-image")).unwrap();
    let listed = images.list().unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|image| (image.name.as_str(), image.bytes, image.problem.is_some()))
        .collect();
    assert_eq!(names, [("a", 3, false), ("b", 0, true)]);
    assert_eq!(Images::open(folder.path().join("none")).list().unwrap(), []);
}

#[test]
fn an_image_in_use_is_not_removed() {
    let folder = folder();
    let images = Images::open(folder.path());
    assert!(matches!(images.remove("a", |_| true), Err(ImageError::InUse(_))));
    assert!(images.get("a").is_ok());
    images.remove("a", |asked| asked == folder.path().join("a")).unwrap_err();
    images.remove("a", |_| false).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(matches!(images.remove("a", |_| false), Err(ImageError::NotFound { .. })));
}

#[test]
fn a_bare_iso_is_an_image_without_agent() {
    let folder = folder();
    let iso = folder.path().join("a/c.iso");
    let image = Images::open("/nowhere").bare_iso(&iso).unwrap();
    assert_eq!((image.sha256.as_str(), image.has_agent), (ABC, false));
    assert!(folder.path().join("a/.c.iso.sums").is_file());
    fs::write(&iso, "abd").unwrap();
    assert_ne!(Images::open("/nowhere").bare_iso(&iso).unwrap().sha256, ABC);
    assert!(Images::open("/nowhere").bare_iso(&folder.path().join("none")).is_err());
}

#[test]
fn own_recipes_are_built_here() {
    let folder = folder();
    let sources = folder.path().join("sources");
    fs::create_dir(&sources).unwrap();
    let script = "mkdir \"$3/b\" && sed s/\\'a\\'/\\'b\\'/ \"$3/a/image.toml\" >\"$3/b/image.toml\" && cp \"$3/a/c.iso\" \"$3/b/\"\n\
                  echo working >&2\n";
    fs::write(sources.join("build"), script).unwrap();
    let images = Images::open(folder.path());
    let mut said = Vec::new();
    let built = images
        .build("b", &Sources::Folder(sources), false, &mut |line| said.push(line.to_owned()))
        .unwrap();
    assert_eq!(
        (built.name.as_str(), built.sha256.as_str(), said),
        ("b", ABC, vec!["working".to_owned()])
    );
    let error = images.build("none", &Sources::Embedded, false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("there are debian, small"), "{error}");
}

#[test]
fn a_kernel_is_told_by_both_its_files() {
    let text = |initrd: &str| {
        format!(
            "name='a'\nkind='kernel'\nkernel='k'\ninitrd='i'\nmemory_mb_min=64\n[sha256]\nk='{ABC}'\ni='{initrd}'\n"
        )
    };
    let told_of = |initrd: &str| told(&Manifest::parse(&text(initrd)).unwrap());
    assert_ne!(told_of(ABC), told_of(&"0".repeat(64)));
    assert_eq!(told_of(ABC).len(), 64);
}

#[test]
fn a_machine_is_known_by_its_command_line() {
    let check = |words: &[u8], expected| {
        let is_it = is_virtual_machine(words) && names(words, b"/i/small/");
        assert_eq!(is_it, expected);
    };
    check(b"/usr/bin/qemu-system-x86_64\0-kernel\0/i/small/vmlinux\0", true);
    check(b"qemu-system-x86_64\0-drive\0file=/i/small/disk\0", true);
    check(b"qemu-system-x86_64\0-kernel\0/i/small2/vmlinux\0", false);
    check(b"cat\0/i/small/vmlinux\0", false);
    check(b"", false);
    assert!(!runs_from(Path::new("/nowhere")));
}
