//! Machines by the command line, the system's `ssh` included.

use std::io::Write as _;

use e2e::lending::{id, images, text};
use e2e::{Exit, Lending, Process, program, run, wait_until};
use serde_json::{Value, json};

fn machine(lending: &Lending, arguments: &[&str]) -> Exit {
    let arguments = [&["machine"], arguments].concat();
    let environment = [
        ("GATEHOUSE_URL", lending.base().to_owned()),
        ("HOME", lending.path("").display().to_string()),
        ("XDG_STATE_HOME", lending.path("kept").display().to_string()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    Process::start(&program(), &arguments, &lending.path(""), &environment).wait()
}

fn json_of(exit: &Exit) -> Value {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    serde_json::from_str(exit.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {exit:?}"))
}

#[test]
fn a_machine_is_created_entered_and_destroyed() {
    let lending = Lending::start_in(Lending::setup().set("containers", "ssh_gateway_port", "0"));
    let lent = json_of(&machine(&lending, &["create", "--json", "--ttl", "10m", "--label", "a=b"]));
    let id = text(&lent["machine"]["id"]);
    assert_eq!(lent["machine"]["labels"], json!({ "a": "b" }));
    assert_eq!(text(&lent["password"]).len(), 120);
    let list = json_of(&machine(&lending, &["list", "--json"]));
    assert_eq!(list["machines"].as_array().unwrap().len(), 1, "{list}");
    let shown = machine(&lending, &["list"]);
    assert!(shown.stdout.contains(&id[..8]), "{shown:?}");

    // The key that was made for those who have none lets its holder in without a question.
    let exit = machine(&lending, &["ssh", &id[..6], "--", "id -un; exit 7"]);
    assert_eq!(exit.code, Some(7), "{exit:?}");
    assert_eq!(exit.stdout.trim(), text(&lent["username"]));

    let shown = json_of(&machine(&lending, &["show", "--json", &id[..6]]));
    assert_eq!((&shown["id"], &shown["state"]), (&lent["machine"]["id"], &json!("ready")));
    assert_eq!(shown["host_key"], lent["machine"]["host_key"]);
    let by_gateway = machine(&lending, &["ssh", "--gateway", &id[..6], "--", "id -un; exit 7"]);
    assert_eq!(by_gateway.code, Some(7), "{by_gateway:?}");
    assert_eq!(by_gateway.stdout.trim(), text(&lent["username"]));
    let _ = lending.log().wait_for(&["logged in by the SSH gateway", &id, "certificate"]);

    let extended = json_of(&machine(&lending, &["extend", "--json", &id, "1h"]));
    assert!(text(&extended["expires_at"]) > text(&lent["machine"]["expires_at"]));
    let logs = machine(&lending, &["logs", &id]);
    let console = lending.get(&format!("/machines/{id}/console")).text();
    assert_eq!((logs.code, logs.stdout.trim()), (Some(0), console.trim()), "{logs:?}");
    let destroyed = machine(&lending, &["destroy", &id[..6]]);
    assert_eq!(destroyed.code, Some(0), "{destroyed:?}");
    assert_ne!(machine(&lending, &["show", &id]).code, Some(0));
    wait_until("everything to be undone", || {
        (lending.ids().is_empty() && lending.qemu().is_empty()).then_some(())
    });
}

#[test]
fn what_cannot_be_had_is_told_on_one_line() {
    let lending = Lending::start_in(Lending::setup().set(
        "containers",
        "max_allowed_running_container_domains",
        "1",
    ));
    let exit = machine(&lending, &["create", "--no-ssh-key", "--image", "nowhere"]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("nowhere"), "{exit:?}");
    let exit = machine(&lending, &["show", "ffff"]);
    assert!(exit.code == Some(1) && !exit.stderr.contains("panicked"), "{exit:?}");
    let _ = lending.lend_any();
    let exit = machine(&lending, &["create", "--no-ssh-key", "--json"]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(text(&serde_json::from_str::<Value>(exit.stderr.trim()).unwrap()["error"]).len() > 5);
}

#[test]
fn ctrl_c_undoes_a_creation() {
    let lending = Lending::start();
    let environment = [("GATEHOUSE_URL".to_owned(), lending.base().to_owned())];
    let arguments = ["machine", "create", "--no-ssh-key"];
    let mut process = Process::start(&program(), &arguments, &lending.path(""), &environment);
    let begun = || lending.available() < 6;
    wait_until("the creation to begin", || begun().then_some(()));
    process.signal(e2e::Signal::INT);
    assert_ne!(process.wait().code, Some(0));
    lending.wait_for_nothing();
}

#[test]
fn images_are_listed_as_they_are() {
    let folder = images().display().to_string();
    let exit = run(
        &program(),
        &["image", "list", "--json", "--directory", &folder],
        std::path::Path::new("/"),
    );
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains("small"), "{exit:?}");
}

#[test]
fn an_image_that_is_in_use_is_verified_and_not_removed() {
    let setup = Lending::setup().set("containers", "images", "{dir}/images").set(
        "containers",
        "default_image",
        "borrowed",
    );
    let own = setup.path().join("images/borrowed");
    std::fs::create_dir_all(&own).unwrap();
    for entry in std::fs::read_dir(images().join("small")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
    }
    // Under its own name, since other tests have machines of `small`.
    let manifest = std::fs::read_to_string(own.join("image.toml")).unwrap();
    let manifest = manifest.replace("name = \"small\"", "name = \"borrowed\"");
    std::fs::write(own.join("image.toml"), manifest).unwrap();
    let lending = Lending::start_in(setup);
    let image = |arguments: &[&str]| {
        let folder = lending.path("images").display().to_string();
        let arguments = [&["image"], arguments, &["--directory", &folder]].concat();
        run(&program(), &arguments, &lending.path(""))
    };
    let path = format!("/machines/{}", id(&lending.lend_any()));
    let verified = image(&["verify", "borrowed"]);
    assert_eq!((verified.code, verified.stdout.lines().count()), (Some(0), 3), "{verified:?}");
    let removed = image(&["remove", "borrowed"]);
    assert_eq!(removed.code, Some(1), "{removed:?}");
    assert!(removed.stderr.contains("borrowed") && own.is_dir(), "{removed:?}");

    let _ = lending.request("DELETE", &path).send().ok();
    std::fs::OpenOptions::new()
        .append(true)
        .open(own.join("initrd"))
        .and_then(|mut file| file.write_all(b"x"))
        .unwrap();
    let verified = image(&["verify", "--json"]);
    assert_eq!(verified.code, Some(2), "{verified:?}");
    let bad: Vec<Value> = serde_json::from_str(&verified.stdout).unwrap();
    let bad: Vec<&Value> = bad.iter().filter(|file| file["good"] == false).collect();
    assert_eq!((bad.len(), &bad[0]["file"]), (1, &json!("initrd")));
    let _ = lending.post("/machines").send().refused(400);
    let removed = image(&["remove", "borrowed"]);
    assert_eq!((removed.code, own.exists()), (Some(0), false), "{removed:?}");
    let said = lending.post("/machines").send().refused(400);
    assert!(said.contains("borrowed"), "{said}");
}
