//! The kinds of values a setting can have: what is expected, and how it is read.
//!
//! Invariant: typed and plain text are read alike (`int:80`, `80`), and nothing out of range passes.
//! Not here: which setting is of which kind (`table`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wire::Secret;

use super::containers::{Accelerator, OnShutdown, PortRange as Ports, TimeLimit};
use super::spelling;
use super::{AccessLog, IpNetwork, Level, LogFormat, RotationAction};
use crate::tcp::ip_filter::IpRule;

/// How a value is read.
pub(super) struct Kind<T> {
    /// What a value must be, for people.
    pub(super) expects: &'static str,
    /// Which numbers.
    pub(super) range: Option<Range>,
    /// Whether the value is never shown.
    pub(super) secret: bool,
    /// `None`: it is not what is expected.
    pub(super) read: fn(&Value, &Door<'_>) -> Option<T>,
}

/// Which numbers a setting takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// `None`: any above 0.
    pub(super) least: Option<u64>,
    pub(super) greatest: u64,
}

/// What reading depends on.
pub(super) struct Door<'a> {
    /// Of the setting.
    pub(super) range: Option<Range>,
    /// The configuration file's directory.
    pub(super) directory: Option<&'a Path>,
}

/// A route name, when one was given, and the directory served there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documents {
    pub(super) route: Option<String>,
    pub(super) directory: PathBuf,
}

/// A value as `config show` shows it.
pub(super) trait Shown {
    fn shown(&self) -> Value;
}

const fn kind<T>(expects: &'static str, read: fn(&Value, &Door<'_>) -> Option<T>) -> Kind<T> {
    Kind { expects, range: None, secret: false, read }
}

const fn ranged<T>(
    expects: &'static str,
    (least, greatest): (u64, u64),
    read: fn(&Value, &Door<'_>) -> Option<T>,
) -> Kind<T> {
    let range = Some(Range { least: Some(least), greatest });
    Kind { expects, range, secret: false, read }
}

pub(super) const SWITCH: Kind<bool> =
    kind("true or false (on, off, yes, no, 1, 0, …)", |value, _| {
        let text = line(value)?;
        // An empty value is more likely forgotten than meant.
        if text.is_empty() { None } else { spelling::switch(&text) }
    });

pub(super) const PORT: Kind<u16> =
    ranged("a port number", (0, 65535), |value, door| u16::try_from(number(value, door)?).ok());

pub(super) const HOST: Kind<String> =
    kind("an address or a host name", |value, _| host(&line(value)?));

/// As the documents of containers have it, where nothing is every address of IPv4.
pub(super) const CONTAINERS_HOST: Kind<String> =
    kind("an address or a host name", |value, _| match line(value)?.as_str() {
        "" => Some("0.0.0.0".to_owned()),
        text => host(text),
    });

fn host(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_name = !bare.is_empty()
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let is_address = bare.parse::<IpAddr>().is_ok();
    (is_name || is_address).then(|| bare.to_owned())
}

pub(super) const NETWORKS: Kind<Vec<IpNetwork>> =
    kind("addresses or networks, as in `10.0.0.0/8 ::1`", |value, _| {
        words(value)?.iter().map(|word| IpNetwork::parse(word)).collect()
    });

pub(super) const TEXT: Kind<String> = kind("one line of text", |value, _| line(value));

pub(super) const FILE_NAME: Kind<String> = kind("a file name without a directory", |value, _| {
    line(value).filter(|name| {
        !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != ".."
    })
});

pub(super) const PATH: Kind<PathBuf> =
    kind("a path", |value, door| Some(door.path(&filled(value)?)));

/// Of a file that the server itself makes: beside the configuration file before it is there, too, so that
/// it is the same one wherever the server is started.
pub(super) const OWN_PATH: Kind<PathBuf> = kind("a path", |value, door| {
    let text = filled(value)?;
    Some(door.directory.map_or_else(|| PathBuf::from(&text), |directory| directory.join(&text)))
});

pub(super) const PATHS: Kind<Vec<PathBuf>> =
    kind("a directory, or a `list:` of directories", |value, door| {
        let texts = match value {
            Value::Array(items) => items.iter().map(filled).collect::<Option<Vec<_>>>()?,
            _ => line(value).into_iter().filter(|text| !text.is_empty()).collect(),
        };
        // Plain text that breaks the line or is of another type was meant as something else.
        let is_text = matches!(value, Value::Array(_) | Value::String(_)) && line_or_list(value);
        is_text.then(|| texts.iter().map(|text| door.path(text)).collect())
    });

pub(super) const COMMAND: Kind<PathBuf> = kind("a path or a program's name", |value, door| {
    let text = filled(value)?;
    // A bare name is looked up in `PATH` by whoever starts it.
    Some(if text.contains('/') { door.path(&text) } else { PathBuf::from(text) })
});

pub(super) const DOCUMENTS: Kind<Documents> =
    kind("`route:directory` or a directory", |value, door| {
        let text = filled(value)?;
        let (route, directory) = match text.split_once(':') {
            Some((route, directory)) => (Some(route.trim().trim_matches('/')), directory.trim()),
            None => (None, text.as_str()),
        };
        let is_one_segment = |route: &str| {
            !route.is_empty() && !route.contains(['/', '?', '#', '%']) && !route.starts_with('.')
        };
        if directory.is_empty() || route.is_some_and(|route| !is_one_segment(route)) {
            return None;
        }
        Some(Documents { route: route.map(str::to_owned), directory: door.path(directory) })
    });

pub(super) const ORIGINS: Kind<Vec<String>> =
    kind("origins, as in `https://example.org`, or `*`", |value, _| {
        words(value)?.iter().map(|word| origin(word)).collect()
    });

pub(super) const KEY: Kind<Secret> = Kind {
    expects: "a key of one line that is not empty",
    range: None,
    secret: true,
    read: |value, _| filled(value).map(Secret::new),
};

pub(super) const LEVEL: Kind<Level> =
    kind("error, warning, info or debug", |value, _| Level::parse(&line(value)?));

pub(super) const FORMAT: Kind<LogFormat> =
    kind("text or json", |value, _| match line(value)?.to_ascii_lowercase().as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });

pub(super) const ROTATION: Kind<RotationAction> =
    kind("archive or delete", |value, _| match line(value)?.to_ascii_lowercase().as_str() {
        "archive" => Some(RotationAction::Archive),
        "delete" => Some(RotationAction::Delete),
        _ => None,
    });

pub(super) const ACCESS: Kind<AccessLog> =
    kind("off, errors or all", |value, _| match line(value)?.to_ascii_lowercase().as_str() {
        "off" | "false" => Some(AccessLog::Off),
        "errors" => Some(AccessLog::Errors),
        "all" => Some(AccessLog::All),
        _ => None,
    });

/// A port that must be known to be of use.
pub(super) const OPEN_PORT: Kind<u16> =
    ranged("a port number", (1, 65535), |value, door| u16::try_from(number(value, door)?).ok());

pub(super) const NAME: Kind<String> = kind("a user name", |value, _| {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    filled(value).filter(|name| name.chars().all(fits) && !name.starts_with('-'))
});

pub(super) const PORT_RANGE: Kind<Ports> =
    kind("two port numbers, as in `10000 20000`", |value, _| {
        let words = match value {
            Value::Array(items) => items.iter().map(filled).collect::<Option<Vec<_>>>()?,
            _ => line(value)?.split([' ', '-', ',']).map(str::to_owned).collect(),
        };
        let mut numbers =
            words.iter().filter(|word| !word.is_empty()).map(|word| word.parse().ok());
        let (first, last) = (numbers.next()??, numbers.next()??);
        (numbers.next().is_none() && 0 < first && first <= last).then_some(Ports { first, last })
    });

pub(super) const IP_RULES: Kind<Vec<IpRule>> = kind(
    "`any`, addresses, networks or ranges, as in `10.0.0.0/8 10.9.0.1-10.9.0.7`",
    |value, _| words(value)?.iter().map(|word| IpRule::parse(word)).collect(),
);

pub(super) const ACCELERATOR: Kind<Accelerator> =
    kind("auto, kvm or qemu", |value, _| match line(value)?.to_ascii_lowercase().as_str() {
        "auto" => Some(Accelerator::Auto),
        "kvm" => Some(Accelerator::Kvm),
        "qemu" => Some(Accelerator::Emulation),
        _ => None,
    });

pub(super) const ON_SHUTDOWN: Kind<OnShutdown> =
    kind("keep or stop", |value, _| match line(value)?.to_ascii_lowercase().as_str() {
        "keep" => Some(OnShutdown::Keep),
        "stop" => Some(OnShutdown::Stop),
        _ => None,
    });

/// Ten years, in seconds.
const TIME_SECS_MAX: u64 = 10 * 366 * 24 * 60 * 60;

/// A time, or none.
pub(super) const TIME_LIMIT: Kind<TimeLimit> =
    ranged("a whole number of seconds", (0, TIME_SECS_MAX), |value, door| {
        let secs = number(value, door)?;
        Some(TimeLimit((secs > 0).then(|| Duration::from_secs(secs))))
    });

/// A time, or -1 for none.
pub(super) const TRYOUTS: Kind<TimeLimit> =
    kind("a whole number of seconds above 0, or -1", |value, _| {
        match line(value)?.parse::<i64>().ok()? {
            -1 => Some(TimeLimit(None)),
            secs => {
                let secs = u64::try_from(secs).ok().filter(|secs| (1..=86400).contains(secs))?;
                Some(TimeLimit(Some(Duration::from_secs(secs))))
            }
        }
    });

/// A whole number.
pub(super) const fn whole(least: u64, greatest: u64) -> Kind<u64> {
    ranged("a whole number", (least, greatest), number)
}

/// How many of something.
pub(super) const fn count(least: u64, greatest: u64) -> Kind<usize> {
    ranged("a whole number", (least, greatest), |value, door| {
        usize::try_from(number(value, door)?).ok()
    })
}

/// How often something may be done.
pub(super) const fn times(least: u64, greatest: u64) -> Kind<u32> {
    ranged("a whole number", (least, greatest), |value, door| {
        u32::try_from(number(value, door)?).ok()
    })
}

/// A time above nothing; parts of a second are fine.
pub(super) const fn seconds(greatest: u64) -> Kind<Duration> {
    let read: fn(&Value, &Door<'_>) -> Option<Duration> = |value, door| {
        let time = Duration::try_from_secs_f64(line(value)?.parse().ok()?).ok()?;
        let time_max = Duration::from_secs(door.range?.greatest);
        (time > Duration::ZERO && time <= time_max).then_some(time)
    };
    let range = Some(Range { least: None, greatest });
    Kind { expects: "a number of seconds", range, secret: false, read }
}

/// A number of bytes.
pub(super) const fn bytes(least: u64, greatest: u64) -> Kind<usize> {
    ranged(
        "a number of bytes (`KiB`, `MiB` and `GiB` may follow)",
        (least, greatest),
        |value, door| {
            let text = line(value)?.to_ascii_lowercase();
            let units = [("kib", 10), ("mib", 20), ("gib", 30)];
            let unit =
                units.iter().find_map(|(name, bits)| Some((text.strip_suffix(name)?, *bits)));
            let (digits, bits) = unit.unwrap_or((&text, 0));
            let bytes = digits.trim().parse::<u64>().ok()?.checked_mul(1 << bits)?;
            usize::try_from(in_range(bytes, door)?).ok()
        },
    )
}

impl Door<'_> {
    /// A path of the file: beside the file when something is there, else as it stands.
    fn path(&self, text: &str) -> PathBuf {
        let beside = self.directory.map(|directory| directory.join(text));
        beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(text))
    }
}

/// The value as one line of text; `None` for lists, tables and several lines.
fn line(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.contains(char::is_control)).then_some(text)
}

/// The same when there is something in it.
fn filled(value: &Value) -> Option<String> {
    line(value).filter(|text| !text.is_empty())
}

fn line_or_list(value: &Value) -> bool {
    value.is_array() || line(value).is_some()
}

/// The items of a list, or the words of a text.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(filled).collect(),
        Value::String(text) => {
            let parts = text.split(|c: char| c.is_whitespace() || c == ',');
            Some(parts.filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        _ => None,
    }
}

fn number(value: &Value, door: &Door<'_>) -> Option<u64> {
    in_range(line(value)?.parse().ok()?, door)
}

fn in_range(number: u64, door: &Door<'_>) -> Option<u64> {
    let Range { least, greatest } = door.range?;
    (least.unwrap_or(1)..=greatest).contains(&number).then_some(number)
}

/// An origin as a browser sends it: lower-case, without a slash at the end.
fn origin(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let uri: http::Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_origin = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    is_origin.then(|| format!("{scheme}://{authority}").to_ascii_lowercase())
}

macro_rules! shown {
    ($($type:ty: |$value:ident| $shown:expr;)*) => {
        $(impl Shown for $type {
            fn shown(&self) -> Value {
                let $value = self;
                $shown
            }
        })*
    };
}

shown! {
    bool: |flag| Value::Bool(*flag);
    u16: |number| (*number).into();
    u32: |number| (*number).into();
    u64: |number| (*number).into();
    usize: |number| (*number).into();
    String: |text| text.as_str().into();
    PathBuf: |path| path.display().to_string().into();
    Vec<PathBuf>: |paths| paths.iter().map(Shown::shown).collect();
    Vec<String>: |texts| texts.iter().map(Shown::shown).collect();
    Vec<IpNetwork>: |networks| networks.iter().map(|n| Value::from(n.to_string())).collect();
    Secret: |secret| secret.expose().into();
    Level: |level| level.name().into();
    RotationAction: |action| match action {
        RotationAction::Archive => "archive",
        RotationAction::Delete => "delete",
    }.into();
    LogFormat: |format| match format { LogFormat::Text => "text", LogFormat::Json => "json" }.into();
    AccessLog: |access| match access {
        AccessLog::Off => "off",
        AccessLog::Errors => "errors",
        AccessLog::All => "all",
    }.into();
    Vec<IpRule>: |rules| rules.iter().map(|rule| Value::from(rule.to_string())).collect();
    Accelerator: |accelerator| match accelerator {
        Accelerator::Auto => "auto",
        Accelerator::Kvm => "kvm",
        Accelerator::Emulation => "qemu",
    }.into();
    OnShutdown: |on_shutdown| match on_shutdown {
        OnShutdown::Keep => "keep",
        OnShutdown::Stop => "stop",
    }.into();
    Ports: |ports| format!("{} {}", ports.first, ports.last).into();
    TimeLimit: |limit| limit.0.map_or(0, |limit| limit.as_secs()).into();
    Documents: |documents| match &documents.route {
        Some(route) => format!("{route}:{}", documents.directory.display()),
        None => documents.directory.display().to_string(),
    }.into();
    Duration: |time| if time.subsec_nanos() == 0 {
        time.as_secs().into()
    } else {
        time.as_secs_f64().into()
    };
}
