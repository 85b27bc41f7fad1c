//! What a file means, from its text to the [`Config`] or to the message.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{AccessLog, Config, Level, LogFormat, Overrides, Problems, show, show_json};

fn load(text: &str) -> Result<Config, Problems> {
    let environment = |name: &str| (name == "KEY").then(|| "from-env".to_owned());
    Config::embedded("f", text, &Overrides::default(), &environment)
}

/// Loads `text` and compares what `look` finds.
fn check<T: PartialEq + std::fmt::Debug>(text: &str, look: fn(&Config) -> T, expected: T) {
    match load(text) {
        Ok(config) => assert_eq!(look(&config), expected, "{text}"),
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

fn check_problems(text: &str, expected: &str) {
    let found = load(text).map_or_else(|problems| problems.to_string(), |_| "fine".to_owned());
    assert_eq!(found, expected, "{text}");
}

fn check_warnings(text: &str, expected: &str) {
    let warnings = load(text).unwrap().warnings;
    let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(lines.join("\n"), expected, "{text}");
}

#[test]
fn an_empty_file_gives_every_default() {
    let config = load("").unwrap();
    assert_eq!((config.network.bind_to.as_str(), config.network.port), ("127.0.0.1", 9192));
    assert_eq!(config.limits.body_bytes_max, 16 << 20);
    assert_eq!(config.limits.reply_bytes_max, 64 << 20);
    assert_eq!(config.limits.connections_max, 20_000);
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(75));
    assert!(config.tls.is_none() && config.cors.is_none() && config.apikey.is_none());
    assert!(config.paths.plugins.is_empty() && config.file_server.documents.is_none());
    assert_eq!(config.python.interpreter, Path::new("python3"));
    assert_eq!((config.python.memory_mib_max, config.python.calls_max), (1024, 4096));
    assert_eq!((config.log.level, config.log.format), (Level::Info, LogFormat::Text));
    assert_eq!(config.log.access, AccessLog::Errors);
    assert!(config.warnings.is_empty());
}

#[test]
fn typed_and_plain_text_are_read_alike() {
    for port in ["port=81", "Port: int:81", "listen=81", "LISTEN=${x:n}"] {
        check(&format!("[Network]\n{port}\n[x]\nn=int:81"), |c| c.network.port, 81);
    }
    for off in ["enabled=false", "enable=bool:false", "enabled=no", "enabled=0", "enabled=int:0"] {
        check(&format!("[SSL]\n{off}"), |c| c.tls.is_none(), true);
    }
    check(
        "[limits]\nheader_timeout_secs=0.25",
        |c| c.limits.header_timeout,
        Duration::from_millis(250),
    );
    check("[limits]\nbody_bytes_max=2 KiB", |c| c.limits.body_bytes_max, 2048);
    check("[DEFAULT]\nport=82\n[network]\n", |c| c.network.port, 82);
    check("[log]\nlevel=CRITICAL", |c| c.log.level, Level::Error);
    check("[network]\nbindto=[::1]", |c| c.network.bind_to.clone(), "::1".to_owned());
}

#[test]
fn lists_are_lists_of_one_when_written_plainly() {
    let plugins = |c: &Config| c.paths.plugins.clone();
    check("[paths]\nplugins=/a b/c", plugins, vec![PathBuf::from("/a b/c")]);
    check("[Paths]\npluginpath=list:/a /b", plugins, vec!["/a".into(), "/b".into()]);
    let origins = |c: &Config| c.cors.clone().unwrap().origins;
    check(
        "[cors]\nenabled=on\norigin_url=https://A.example:8/",
        origins,
        vec!["https://a.example:8".to_owned()],
    );
    check(
        "[cors]\nenabled=on\norigin_url=list:* http://b",
        origins,
        vec!["*".into(), "http://b".into()],
    );
    check(
        "[network]\ntrusted_proxies=10.0.0.0/8, ::1",
        |c| {
            c.network
                .trusted_proxies
                .iter()
                .any(|n| n.contains("10.9.9.9".parse::<IpAddr>().unwrap()))
        },
        true,
    );
}

#[test]
fn several_mistakes_are_reported_at_once() {
    check_problems(
        "[network]\nport=70000\nbindto=\nlisen=1\ncertfile=x\ncolour=red\n[limits]\nbody_timeout_secs=0\n\
         [log]\nlevel=loud\n[auth]\napikey=\n[cors]\nenabled=bool:ture\norigin_url=example.org\n\
         [python]\nvenv=a\n  interpreter=b",
        "f:2: [network] port: found `70000`, expected a port number, 0 to 65535\n\
         f:3: [network] bindto: found nothing, expected an address or a host name\n\
         f:4: [network] lisen: unknown key; did you mean `listen`?\n\
         f:5: [network] certfile: unknown key; `certfile` belongs to [ssl]\n\
         f:6: [network] colour: unknown key; [network] has bindto, port, trusted_proxies\n\
         f:8: [limits] body_timeout_secs: found `0`, expected a number of seconds above 0, at most 3600\n\
         f:10: [log] level: found `loud`, expected error, warning, info or debug\n\
         f:12: [auth] apikey: found nothing, expected a key of one line that is not empty\n\
         f:14: [cors] enabled: `bool:ture` is neither a word for true nor one for false; taken as false\n\
         f:15: [cors] origin_url: found `example.org`, expected origins, as in `https://example.org`, or `*`\n\
         f:17: [python] venv: found several lines (an indented line goes on with the value above), expected a path",
    );
}

#[test]
fn two_spellings_of_one_setting_are_reported() {
    check_problems(
        "[network]\nport=1\nlisten=1",
        "f:3: [network] listen: means the same as `port` in line 2; keep one",
    );
}

#[test]
fn what_is_enabled_needs_its_settings() {
    check_problems(
        "[ssl]\nenabled=true\ncertfile=c.pem",
        "f:2: [ssl] enabled: needs `keyfile`: a path",
    );
    check_problems(
        "[cors]\nenable=true",
        "f:2: [cors] enable: needs `origin_url`: origins, as in `https://example.org`, or `*`",
    );
    check(
        "[ssl]\nenabled=on\ncertfile=/c\nkeyfile=/k",
        |c| c.tls.clone().unwrap().keyfile,
        "/k".into(),
    );
}

#[test]
fn documents_have_a_route_name() {
    let documents =
        |c: &Config| c.file_server.documents.clone().map(|(n, d)| (n, d.display().to_string()));
    let is = |name: &str, path: &str| Some((name.to_owned(), path.to_owned()));
    check("[paths]\ndocuments=a:/x/y", documents, is("a", "/x/y"));
    check("[paths]\ndocuments=/x/y", documents, is("doc", "/x/y"));
    check("[file_server]\ndocuments=/x/y/", documents, is("y", "/x/y/"));
    check("[file_server]\ndocuments=/a/:/x/y", documents, is("a", "/x/y"));
    check_problems(
        "[file_server]\ndocuments=/",
        "f:2: [file_server] documents: the directory has no name of its own; write `route:directory`",
    );
    check_problems(
        "[file_server]\ndocuments=a/b:/x",
        "f:2: [file_server] documents: found `a/b:/x`, expected `route:directory` or a directory",
    );
    check_warnings(
        "[file_server]\ndocuments=/x\n[paths]\ndocuments=/y",
        "f:4: [paths] documents: left out: `documents` in [file_server] counts",
    );
}

#[test]
fn tasks_are_there_when_a_database_is() {
    let tasks = |c: &Config| {
        c.tasks.clone().map(|t| (t.database.display().to_string(), t.files.display().to_string()))
    };
    let is = |database: &str, files: &str| Some((database.to_owned(), files.to_owned()));
    check("", tasks, None);
    check("[tasks]\ndatabase=", tasks, None);
    check("[tasks]\ndatabase=/x/t.db", tasks, is("/x/t.db", "/x/t.db.files"));
    check("[tasks]\ndatabase=/x/t.db\nfiles=/y", tasks, is("/x/t.db", "/y"));
    check_warnings(
        "[tasks]\nwait_secs=2",
        "f:2: [tasks] wait_secs: without `database` in [tasks] there are no tasks",
    );
    check_warnings("[tasks]\ndatabase=t.db\nwait_secs=2", "");
}

#[test]
fn tasks_have_the_documented_limits_unless_told_otherwise() {
    let config = load("[tasks]\ndatabase=t.db").unwrap();
    let tasks = config.tasks.unwrap();
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    assert_eq!(
        (tasks.wait, tasks.file_lifetime),
        (Duration::from_secs(26), Duration::from_secs(3600))
    );
    assert_eq!((tasks.events_max, tasks.queue_max, tasks.attempts_max), (512, 10_000, 5));
    assert_eq!((tasks.history, tasks.session), (Some(days(30)), days(30)));
    assert_eq!((tasks.output_bytes_max, tasks.file_bytes_max), (1 << 20, 32 << 20));
    assert_eq!(tasks.file_uses, 5);
    assert_eq!((tasks.audit, tasks.selfreg_agents_max), (None, 10_000));
    check("[tasks]\ndatabase=t\naudit_days=9", |c| c.tasks.clone().unwrap().audit, Some(days(9)));
    check("[tasks]\ndatabase=t\nhistory_days=0", |c| c.tasks.clone().unwrap().history, None);
    check_problems(
        "[tasks]\nwait_secs=61\nevents_max=0\nqueue_max=-1\nhistory_days=x\nsession_days=0\n\
         attempts_max=1001\noutput_bytes_max=0\nfiles=a\tb\nfile_bytes_max=2GiB\nfile_uses=0\nwait_sec=1",
        "f:2: [tasks] wait_secs: found `61`, expected a number of seconds above 0, at most 60\n\
         f:3: [tasks] events_max: found `0`, expected a whole number, 1 to 1000000\n\
         f:4: [tasks] queue_max: found `-1`, expected a whole number, 1 to 1000000\n\
         f:5: [tasks] history_days: found `x`, expected a whole number, 0 to 36500\n\
         f:6: [tasks] session_days: found `0`, expected a whole number, 1 to 3650\n\
         f:7: [tasks] attempts_max: found `1001`, expected a whole number, 1 to 1000\n\
         f:8: [tasks] output_bytes_max: found `0`, expected a number of bytes (`KiB`, `MiB` and `GiB` may follow), 1 to 1073741824\n\
         f:9: [tasks] files: found `a\tb`, expected a path\n\
         f:10: [tasks] file_bytes_max: found `2GiB`, expected a number of bytes (`KiB`, `MiB` and `GiB` may follow), 1 to 1073741824\n\
         f:11: [tasks] file_uses: found `0`, expected a whole number, 1 to 1000000\n\
         f:12: [tasks] wait_sec: unknown key; did you mean `wait_secs`?",
    );
}

#[test]
fn the_database_lies_at_the_configuration_file_before_it_is_there() {
    let folder = folder(&[("g.ini", "[tasks]\ndatabase=t.db\nfiles=f\n")]);
    let tasks = load_in(&folder, "g.ini").unwrap().tasks.unwrap();
    assert_eq!(tasks.database, folder.path().join("t.db"));
    assert_eq!(tasks.files, folder.path().join("f"));
}

#[test]
fn parameters_are_a_query_string_with_types() {
    let parameters = |c: &Config| Value::Object(c.parameters_of("Weather").unwrap().clone());
    check(
        "[plugin_parms]\nWeather=a=1&b=two+w%26ds&c=int:7&d=list:x int:2&a=9&e=&f=u=v",
        parameters,
        json!({"a": "1", "b": "two w&ds", "c": 7, "d": ["x", 2], "f": "u=v"}),
    );
    check(
        "[m]\nsecret=p&q=%20\nn=int:3\nbase=x=1&y=int:2\n[pluginparms]\nweather=a=${m:secret}&b=${m:n}&${m:base}",
        parameters,
        json!({"a": "p&q=%20", "b": 3, "x": "1", "y": 2}),
    );
    check("[plugin_parms]\nweather=", parameters, json!({}));
    check_problems(
        "[plugin_parms]\nx=a=1&b=int:q",
        "f:2: [plugin_parms] x: parameter `b`: found `int:…`, expected a whole number after `int:`",
    );
    check_warnings(
        "[plugin_parms]\nx=a=1&flag",
        "f:2: [plugin_parms] x: a parameter without `=value` is left out",
    );
}

#[test]
fn authentication_that_cannot_work_is_a_warning() {
    let warning = |rest: &str| {
        format!("f:2: [plugin_parms] x: {rest}; every request to the plugin is refused (403)")
    };
    check_warnings(
        "[plugin_parms]\nx=auth=globl",
        &warning("found `auth=globl`, expected global or plugin"),
    );
    check_warnings(
        "[plugin_parms]\nx=auth_type=global",
        &warning("`auth_type=global` needs [auth] apikey"),
    );
    check_warnings(
        "[plugin_parms]\nx=auth_type=plugin&apikey=${ENV:NONE}",
        &warning(
            "`auth_type=plugin` needs a parameter `apikey` (`${ENV:NONE}` is empty or not set)",
        ),
    );
    check_warnings(
        "[plugin_parms]\nx=city=${ENV:CITY}&auth_type=plugin",
        &warning("`auth_type=plugin` needs a parameter `apikey`"),
    );
    check_warnings("[plugin_parms]\nx=auth=Global\n[auth]\napikey=k", "");
    check_warnings(
        "[netwrk]\nport=1",
        "f:1: [netwrk]: not a section of the server, so left to plugins; did you mean [network]?",
    );
}

#[test]
fn a_variable_that_left_a_value_empty_is_named() {
    check_problems(
        "[auth]\napikey=${ENV:NONE}",
        "f:2: [auth] apikey: found nothing (`${ENV:NONE}` is empty or not set), expected a key of one line that is not empty",
    );
    check_problems(
        "[mine]\na=${ENV:NONE}${ENV:NO}\n[network]\nport=${mine:a}",
        "f:4: [network] port: found nothing (`${ENV:NONE}` and `${ENV:NO}` are empty or not set), expected a port number, 0 to 65535",
    );
    check_problems(
        "[network]\nport=x${ENV:NONE}",
        "f:2: [network] port: found `x`, expected a port number, 0 to 65535",
    );
}

#[test]
fn a_table_of_parameters_names_the_variable_too() {
    let toml = "[plugin_parms.x]\nauth_type = 'plugin'\napikey = '${ENV:NONE}'\n";
    let folder = folder(&[("g.toml", toml)]);
    let config = load_in(&folder, "g.toml").unwrap();
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`apikey` (`${ENV:NONE}` is empty"), "{warnings:?}");
}

#[test]
fn a_number_of_workers_that_cannot_be_started_is_a_warning() {
    let bad = |found: &str| {
        format!(
            "f:2: [plugin_parms] x: {found}`workers` must be a number from 1 to 64; the file is not loaded"
        )
    };
    check_warnings("[plugin_parms]\nx=workers=0", &bad("found `workers=0`, "));
    check_warnings("[plugin_parms]\nx=workers=int:65", &bad("found `workers=65`, "));
    check_warnings("[plugin_parms]\nx=workers=99999999999999999", &bad(""));
    check_warnings("[plugin_parms]\nx=workers=int:64", "");
}

#[test]
fn plugins_see_every_section() {
    check(
        "[DEFAULT]\nd=1\n[SSL]\nenabled=bool:off\n[ssl]\n[Mine]\nId=int:5\n[plugin_parms]\nx=a=${mine:id}&b=int:2",
        |c| Value::Object(c.sections.clone()),
        json!({
            "SSL": {"enabled": false, "d": "1"},
            "Mine": {"id": 5, "d": "1"},
            "plugin_parms": {"x": "a=5&b=int:2", "d": "1"},
        }),
    );
}

/// A directory with a configuration and what belongs to it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load_in(folder: &tempfile::TempDir, name: &str) -> Result<Config, String> {
    let loaded = Config::load(&folder.path().join(name), &Overrides::default(), &|_| None);
    let place = format!("{}/", folder.path().display());
    loaded.map_err(|problems| problems.to_string().replace(&place, ""))
}

#[test]
fn json_files_beside_the_plugins_are_merged() {
    let ini =
        "[paths]\nplugins=list:none p\n[plugin_parms]\na=json:a.json\nb=x=1&z=2&json=a.json\n";
    let folder = folder(&[("g.ini", ini), ("p/a.json", r#"{"x": [1], "y": {"k": null}}"#)]);
    let config = load_in(&folder, "g.ini").unwrap();
    let found = |name: &str| Value::Object(config.parameters_of(name).unwrap().clone());
    assert_eq!(found("a"), json!({"x": [1], "y": {"k": null}}));
    assert_eq!(found("b"), json!({"x": [1], "y": {"k": null}, "z": "2", "json": "a.json"}));
}

#[test]
fn a_json_file_that_cannot_be_used_is_named() {
    let check = |json: &str, expected: &str| {
        let ini = "[paths]\nplugins=p\n[plugin_parms]\nx=json=a.json\n";
        let folder = folder(&[
            ("g.ini", ini),
            ("p/readme", ""),
            (json.split_once(' ').unwrap().0, json.split_once(' ').unwrap().1),
        ]);
        let found = load_in(&folder, "g.ini").unwrap_err();
        assert_eq!(found.replace(&format!("{}/", folder.path().display()), ""), expected);
    };
    check("p/b.json {}", "g.ini:4: [plugin_parms] x: there is no file `a.json` in p");
    check("p/a.json []", "g.ini:4: [plugin_parms] x: p/a.json: expected a JSON object");
    check(
        "p/a.json {",
        "g.ini:4: [plugin_parms] x: p/a.json: EOF while parsing an object at line 1 column 1",
    );
}

#[test]
fn toml_means_the_same() {
    let toml = "[network]\nport = 81\ntrusted_proxies = ['::1']\n[SSL]\nenable = false\n[paths]\nplugins = '${mine:dir}'\n\
                [plugin_parms]\na = 'x=int:1'\n[plugin_parms.B]\nX = 1.5\n[mine]\ndir = '/p'\n";
    let folder =
        folder(&[("g.TOML", toml), ("bad.toml", "[network]\nport = 'x'\n[s]\nx = '${no}'\n")]);
    let config = load_in(&folder, "g.TOML").unwrap();
    assert_eq!((config.network.port, config.paths.plugins.clone()), (81, vec!["/p".into()]));
    assert_eq!(Value::Object(config.parameters_of("a").unwrap().clone()), json!({"x": 1}));
    assert_eq!(Value::Object(config.parameters_of("b").unwrap().clone()), json!({"X": 1.5}));
    assert_eq!(
        load_in(&folder, "bad.toml").unwrap_err(),
        "bad.toml:2: [network] port: found `x`, expected a port number, 0 to 65535\n\
         bad.toml:4: [s] x: `${no}`: [s] has no key `no`"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let long = format!("[a]\nx={}", "y".repeat(1 << 20));
    let folder = folder(&[("long.ini", &long)]);
    std::fs::write(folder.path().join("latin.ini"), b"[a]\nx=\xe9\n").unwrap();
    let check = |name: &str, expected: &str| {
        let found = load_in(&folder, name).unwrap_err();
        assert!(found.starts_with(expected), "{found}");
    };
    check("none.ini", "none.ini: cannot be read: No such file");
    check("long.ini", "long.ini: longer than 1048576 bytes");
    check("latin.ini", "latin.ini:2: is not UTF-8 text");
}

#[test]
fn a_relative_path_is_beside_the_file_when_something_is_there() {
    let ini = "[paths]\nplugins=p\npidfile=none.pid\n[python]\nvenv=v\n";
    let folder = folder(&[("g.ini", ini), ("p/x", ""), ("v/x", "")]);
    let config = load_in(&folder, "g.ini").unwrap();
    assert_eq!(config.paths.plugins, [folder.path().join("p")]);
    assert_eq!(config.paths.pidfile, Some("none.pid".into()));
    assert_eq!(config.python.interpreter, folder.path().join("v/bin/python3"));
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        log_file: Some("l".into()),
        level: Level::parse("WARN"),
        bind: Some("::".into()),
        port: Some(0),
        database: Some("t.db".into()),
        ..Overrides::default()
    };
    let config = Config::embedded("f", "[network]\nport=81\n", &overrides, &|_| None).unwrap();
    assert_eq!((config.network.port, config.network.bind_to.as_str()), (0, "::"));
    assert_eq!((config.log.level, config.log.file.clone()), (Level::Warning, Some("l".into())));
    let tasks = config.tasks.as_ref().unwrap();
    assert_eq!(
        (tasks.database.as_path(), tasks.files.as_path()),
        (Path::new("t.db"), Path::new("t.db.files"))
    );
    assert!(show(&config).contains("# command line"));
    let mistake = Config::embedded("f", "[network]\nport=x\n", &overrides, &|_| None);
    assert!(mistake.is_err());
}

const SECRETS: &str = "[auth]\napikey=${ENV:KEY}\n[ssl]\nkeyfile=/k.pem\n[mine]\ndb_password=hunter2\n\
    header=Bearer ${auth:apikey}\n[plugin_parms]\nx=a=1&apikey=my-own-key&b=2\ntokens=n=1\n";

#[test]
fn no_secret_is_shown() {
    let config = load(SECRETS).unwrap();
    let all = [show(&config), show_json(&config).to_string(), format!("{config:?}")];
    for text in &all {
        for secret in ["from-env", "hunter2", "my-own-key"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("/k.pem") && text.contains("n=1"), "{text}");
        assert!(text.contains("a=1&apikey=********&b=2"), "{text}");
    }
}

#[test]
fn each_value_is_shown_with_its_origin() {
    let config = load(SECRETS).unwrap();
    let text = show(&config);
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap();
    assert_eq!(line("port"), "port = 9192                                   # default");
    assert_eq!(line("apikey"), "apikey = ********                             # f:2");
    assert_eq!(line("header "), "header = Bearer ********                      # f:7");
    assert_eq!(line("interpreter"), "interpreter = python3                         # default");
    let json = show_json(&config);
    assert_eq!(json["ssl"]["keyfile"], json!({"value": "/k.pem", "from": "f:4"}));
    assert_eq!(json["paths"]["pidfile"], json!({"value": null, "from": "default"}));
}
