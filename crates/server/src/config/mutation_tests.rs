//! Throws damaged files at the parser: it may refuse them, but must come back.
//!
//! Invariant: the same inputs every run.
//! Not here: whether what it says is right.

use std::time::{Duration, Instant};

use super::problem::Problems;
use super::value::Resolver;
use super::{Config, Overrides, ini, meant, show, toml_file};

const INI: &str = "[DEFAULT]\nbase = /srv\n[Network]\nbindto=127.0.0.1\nport: int:9192\n\
trusted_proxies = list:10.0.0.0/8 ::1\n[paths]\nplugins=list:${base}/a ${base}/b\n\
documents=doc:${base}/doc\n[SSL]\nenabled=bool:off\n[cors]\nenabled=${SSL:enabled}\n\
origin_url=list:https://a.example\n[auth]\napikey=${ENV:KEY}\n[plugin_parms]\n\
weather=interval=float:2.5&x=list:a int:2&auth_type=global&y=${base}%20\n[limits]\n\
body_bytes_max=16MiB\n[mine]\nx = $${a}${y}\n  more\ny=${n${i}}\ni=int:1\nn1=${mine:z}\nz=bool:yes\n";
const TOML: &str = "[network]\nport = 1\n[paths]\nplugins = [\"a\", \"${b}\"]\nb = 'x'\n\
[plugin_parms.w]\na = 1\nb = {c = \"int:5\"}\n[mine]\nd = 1979-05-27\ne = [1.5, true, '''${x}''']\n";
const PIECES: [&str; 24] = [
    "${",
    "}",
    "$$",
    "=",
    ":",
    "\n",
    "\n ",
    "[",
    "]",
    "list:",
    "int:",
    "bool:",
    "&",
    "%",
    "%zz",
    "json:",
    "${base}",
    "${ENV:KEY}",
    "é",
    "\u{0}",
    "\t",
    "#",
    "99999999999999999999",
    "\"",
];

/// Numbers that only look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}

fn damaged(text: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..=dice.throw(6) {
        let at = dice.throw(letters.len() + 1);
        let end = (at + dice.throw(20)).min(letters.len());
        match dice.throw(4) {
            0 => drop(letters.drain(at..end)),
            1 => {
                let copy = letters[at..end].to_vec();
                letters.splice(at..at, copy);
            }
            _ => {
                let piece = PIECES[dice.throw(PIECES.len())];
                letters.splice(at..at, piece.chars());
            }
        }
    }
    letters.into_iter().collect()
}

#[test]
fn damaged_files_neither_panic_nor_hang() {
    const INPUTS: usize = 20_000;
    const ONE_MAX: Duration = Duration::from_secs(2);
    let environment = |name: &str| (name == "KEY").then(|| "k&e=y".to_owned());
    let mut dice = Dice(7);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..INPUTS {
        let is_toml = dice.throw(3) == 0;
        let (parse, seed): (fn(&str, &str, &mut Problems) -> _, _) =
            if is_toml { (toml_file::parse, TOML) } else { (ini::parse, INI) };
        let text = damaged(seed, &mut dice);
        let begun = Instant::now();
        let mut problems = Problems::default();
        let document = parse("f", &text, &mut problems);
        let resolver = Resolver::new(&document, &environment, &mut problems);
        let config = meant::config(&resolver, &Overrides::default(), None, &mut problems);
        match config.filter(|_| problems.is_empty()) {
            Some(config) => {
                let is_secret = config.apikey.as_ref().is_some_and(|key| key.matches("k&e=y"));
                let is_shown = show(&config).contains("k&e=y");
                assert!(!(is_secret && is_shown), "{text}");
                accepted += 1;
            }
            None => {
                assert!(!problems.to_string().is_empty(), "refused without a word: {text}");
                refused += 1;
            }
        }
        assert!(begun.elapsed() < ONE_MAX, "slow: {text}");
    }
    assert!(accepted > INPUTS / 20 && refused > INPUTS / 20, "{accepted} {refused}");
}

#[test]
fn the_longest_file_is_read_in_bounded_time() {
    let check = |text: String| {
        let begun = Instant::now();
        let _ = Config::embedded("f", &text, &Overrides::default(), &|_| None);
        assert!(begun.elapsed() < Duration::from_secs(20), "{}…", &text[..40]);
    };
    check(format!("[a]\nx={}", "${y}".repeat(260_000)));
    check(format!("[a]\ny=\nx=list:{}", "${y} ".repeat(200_000)));
    check(format!("[a]\nx=list:{}", "${y$".repeat(200_000)));
    check(format!("[a]\nx={}", "list:".repeat(200_000)));
    check(format!("[plugin_parms]\nx={}", "a=${y}&".repeat(140_000)));
    check((0..90_000).map(|key| format!("[{key}]\nx")).collect());
    let keys: String = (0..60_000).map(|key| format!("k{key}=${{k{}}}\n", key + 1)).collect();
    check(format!("[a]\n{keys}"));
    let keys: String = (0..80_000).map(|key| format!("k{key}=1\n")).collect();
    check(format!("[network]\n{keys}"));
}
