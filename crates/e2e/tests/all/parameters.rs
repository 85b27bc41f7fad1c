//! What a plugin is given before its first request: parameters, configuration, log.

use e2e::{Server, Setup};
use serde_json::{Value, json};

/// Starts one plugin whose handler answers `{"v": expression}` and compares that value.
fn check(setup: Setup, expression: &str, wanted: &Value) -> Server {
    let server = setup.handler("Look", &format!("return {{'v': {expression}}}")).start();
    assert_eq!(server.get_json("/look")["v"], *wanted, "{expression}");
    server
}

const BOTH: &str = r#"
class Kwargs(BasePlugin):
    def __init__(self, **kwargs):
        self.first = dict(kwargs)
        super().__init__(**kwargs)
    async def initialize(self, **kwargs):
        self.second = dict(kwargs)
    def request_handler(self, **data):
        plain = lambda kwargs: {k: v for k, v in kwargs.items() if isinstance(v, (str, int, list))}
        return {"first": plain(self.first), "second": plain(self.second),
                "same_keys": sorted(self.first) == sorted(self.second),
                "objects": [name for name in ("config", "log", "args") if self.first.get(name) is not None],
                "kept": [self.args["a"], self.args.get("b"), "config" in self.args],
                "log": callable(self.second["log"])}
"#;

#[test]
fn constructor_and_initialize_get_the_parameters_of_their_file() {
    let server = Setup::new()
        .plugin("kw.py", BOTH)
        .parameters("kw", "a=1&b=two+words&c=int:7&d=list:x int:2")
        .start();
    let seen = server.get_json("/kwargs");
    for call in ["first", "second"] {
        assert_eq!(seen[call]["a"], "1", "{call}");
        assert_eq!(seen[call]["b"], "two words", "{call}");
        assert_eq!(seen[call]["c"], 7, "{call}");
        assert_eq!(seen[call]["d"], json!(["x", 2]), "{call}");
    }
    assert_eq!(seen["same_keys"], true);
    assert_eq!(seen["objects"], json!(["config", "log", "args"]));
    assert_eq!(seen["kept"], json!(["1", "two words", true]));
    assert_eq!(seen["log"], true);
}

#[test]
fn all_plugins_of_a_file_get_its_parameters_and_others_do_not() {
    let code = "class One(BasePlugin):\n    def request_handler(self, **data):\n        return {'p': self.args.get('p')}\nclass Two(One):\n    pass\n";
    let server = Setup::new()
        .plugin("pair.py", code)
        .handler("Other", "return {'p': self.args.get('p')}")
        .parameters("pair", "p=mine")
        .start();
    assert_eq!(server.get_json("/one"), json!({"p": "mine"}));
    assert_eq!(server.get_json("/two"), json!({"p": "mine"}));
    assert_eq!(server.get_json("/other"), json!({"p": null}));
}

#[test]
fn parameters_come_from_a_json_file_in_either_spelling() {
    for spelling in ["json:look.json", "json=look.json"] {
        let setup = Setup::new()
            .file("plugins/look.json", r#"{"depth": {"a": [1, 2.5, null]}, "flag": true}"#)
            .parameters("look", spelling);
        let wanted = json!([{"a": [1, 2.5, null]}, true]);
        let _ = check(setup, "[self.args['depth'], self.args['flag']]", &wanted);
    }
}

#[test]
fn parameters_of_a_json_file_are_merged_with_the_others() {
    let setup = Setup::new()
        .file("plugins/look.json", r#"{"b": 2}"#)
        .parameters("look", "a=1&json=look.json");
    let _ = check(setup, "[self.args['a'], self.args['b']]", &json!(["1", 2]));
}

#[test]
fn the_configuration_is_a_dictionary_and_has_attributes_on_both_levels() {
    let setup = Setup::new().set("mine", "colour", "red").set("mine", "count", "int:3");
    let expression = "[self.config['mine']['colour'], self.config.mine.colour, self.config['mine'].count, \
                      self.config.mine['count'], 'mine' in self.config, 'colour' in self.config.mine, \
                      self.config.get('nothing'), self.config.mine.get('nothing', 5), \
                      sorted(self.config['mine'].keys()), dict(self.config.mine)['colour'], \
                      hasattr(self.config, 'nothing'), len(self.config.mine)]";
    let keys = json!(["colour", "count"]);
    let wanted = json!(["red", "red", 3, 3, true, true, null, 5, keys, "red", false, 2]);
    let _ = check(setup, expression, &wanted);
}

#[test]
fn a_key_called_as_a_method_of_a_dictionary_is_still_reached() {
    let setup =
        Setup::new().set("mine", "items", "a").set("mine", "id", "b").set("mine", "type", "c");
    let expression = "[self.config['mine']['items'], self.config.mine.id, self.config.mine.type]";
    let _ = check(setup, expression, &json!(["a", "b", "c"]));
}

#[test]
fn section_names_are_the_same_in_any_case_for_plugins_too() {
    let setup = Setup::new().set("Mine", "Colour", "red");
    let _ = check(setup, "self.config['Mine']['colour']", &json!("red"));
}

#[test]
fn values_carry_their_types_and_references() {
    let setup = Setup::new()
        .environment("GATE_E2E_WORD", "from-outside")
        .set("base", "port", "int:9")
        .set("base", "flag", "bool:Yes")
        .set("mine", "whole", "${base:port}")
        .set("mine", "part", "p-${base:port}-q")
        .set("mine", "flag", "${Base:flag}")
        .set("mine", "own", "${part}!")
        .set("mine", "env", "${ENV:GATE_E2E_WORD}")
        .set("mine", "unset", "x${ENV:GATE_E2E_NOWHERE}y")
        .set("mine", "list", "list:a int:2 ${ENV:GATE_E2E_WORD} bool:off")
        .set("mine", "real", "float:2.5")
        .set("mine", "percent", "100%")
        .set("mine", "dollar", "$$5")
        .set("mine", "url", "http://x/y")
        .handler("Look", "return dict(self.config.mine)");
    let wanted = json!({
        "whole": 9, "part": "p-9-q", "flag": true, "own": "p-9-q!", "env": "from-outside",
        "unset": "xy", "list": ["a", 2, "from-outside", false], "real": 2.5, "percent": "100%",
        "dollar": "$5", "url": "http://x/y",
    });
    assert_eq!(setup.start().get_json("/look"), wanted);
}

#[test]
fn the_configuration_may_be_toml() {
    let setup = Setup::new()
        .handler("Look", "return dict(self.config.mine)")
        .whole("[network]\nport = 0\n[paths]\nplugins = \"{dir}/plugins\"\n[mine]\ncount = 3\nnames = [\"a\", \"b\"]\n");
    let file = setup.write_configuration("gatehouse.toml");
    let arguments = ["serve".into(), "-i".into(), file.into_os_string()];
    let server = setup.start_with(&e2e::program(), &arguments);
    assert_eq!(server.get_json("/look"), json!({"count": 3, "names": ["a", "b"]}));
}

#[test]
fn every_kind_of_log_call_is_written_with_the_name_of_its_plugin() {
    let body = "self.log('said-plain')\nself.log.debug('said-debug')\nself.log.info('said-info')\n\
                self.log.warning('said-warning')\nself.log.error('said-error')\n\
                self.log.critical('said-critical')\nself.log('said', 'in', 3, 'pieces')\n\
                data['log']('said-through-data')\nprint('said-by-print')\n\
                try:\n    1 / 0\nexcept ZeroDivisionError:\n    self.log.exception('said-exception')\nreturn {}";
    let server = Setup::new().handler("Chatty", body).start();
    assert_eq!(server.get_json("/chatty"), json!({}));
    let kinds = [
        "plain",
        "debug",
        "info",
        "warning",
        "error",
        "critical",
        "exception",
        "through-data",
        "by-print",
    ];
    for kind in kinds {
        let _ = server.log().wait_for(&["chatty", &format!("said-{kind}")]);
    }
    let _ = server.log().wait_for(&["chatty", "said in 3 pieces"]);
    let _ = server.log().wait_for(&["ZeroDivisionError"]);
}

#[test]
fn the_log_keeps_its_level() {
    let body = "self.log.debug('too-small')\nself.log.info('too-small-also')\nself.log.warning('large')\nself.log.error('enough')\nreturn {}";
    let server = Setup::new().handler("Quiet", body).set("log", "level", "error").start();
    assert_eq!(server.get_json("/quiet"), json!({}));
    let _ = server.log().wait_for(&["quiet", "enough"]);
    let exit = server.stop();
    assert!(
        !exit.stderr.contains("too-small") && !exit.stderr.contains("large"),
        "{}",
        exit.stderr
    );
}

#[test]
fn what_a_plugin_writes_to_standard_error_is_in_the_log_too() {
    let server = Setup::new()
        .handler("Loud", "import sys\nprint('through-stderr', file=sys.stderr)\nprint('without an end', end='', flush=True)\nreturn {}")
        .start();
    assert_eq!(server.get_json("/loud"), json!({}));
    let _ = server.log().wait_for(&["loud", "through-stderr"]);
}

#[test]
fn a_log_line_of_a_plugin_cannot_pretend_to_be_two() {
    let server =
        Setup::new().handler("Forger", "self.log('one\\nERROR forged line')\nreturn {}").start();
    assert_eq!(server.get_json("/forger"), json!({}));
    let _ = server.log().wait_for(&["forged line"]);
    let exit = server.stop();
    assert!(!exit.stderr.lines().any(|line| line.starts_with("ERROR forged")), "{}", exit.stderr);
}
