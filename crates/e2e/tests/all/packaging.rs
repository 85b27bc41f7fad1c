//! What `packaging` holds fits the programs and the system.

use std::fs;
use std::path::Path;

use e2e::{Setup, program, run};

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let setup = Setup::new();
    let look = ["-c", "command -v systemd-analyze"];
    if run(Path::new("/bin/sh"), &look, setup.path()).code != Some(0) {
        eprintln!("SKIPPED: no systemd-analyze is here");
        return;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let programs = program();
    let programs = programs.parent().unwrap().display().to_string();
    let mut names = Vec::new();
    for unit in fs::read_dir(units).unwrap() {
        let path = unit.unwrap().path();
        // The programs as they were built, since none is installed where the tests run.
        let text = fs::read_to_string(&path).unwrap().replace("/usr/local/bin", &programs);
        let copy = setup.path().join(path.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        names.push(copy.display().to_string());
    }
    assert!(names.len() >= 2, "{names:?}");
    let arguments = [vec!["verify".to_owned(), "--man=no".to_owned()], names].concat();
    let exit = run(Path::new("systemd-analyze"), &arguments, setup.path());
    // Units of the machine itself may have faults of their own.
    let ours = exit.stderr.lines().filter(|line| line.contains("gatehouse")).collect::<Vec<_>>();
    assert_eq!(ours, [""; 0], "{exit:?}");
}
