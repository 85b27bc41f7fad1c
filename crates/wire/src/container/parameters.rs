//! Parameters of requests, typed: the documented credentials, and what CREATE takes beyond the documents.
//!
//! Invariant: every number and length that a client gives is within a limit named here.
//! Not here: what the server's own settings allow within these limits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::errors::Errors;
use super::message::type_complaint;
use crate::Secret;

const UUID: &str = "container_uuid";
const TOKEN: &str = "client_token";
const UUID_RULE: &str =
    "value does not match regex '^[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}$'";
const TOKEN_RULE: &str = "value does not match regex '^[a-zA-Z0-9-_]{255}$'";

/// The longest lifetime, in seconds: ten years.
const TTL_SECS_MAX: u64 = 10 * 366 * 24 * 60 * 60;
/// The most memory, in MiB.
const MEMORY_MB_MAX: u64 = 1 << 20;
const VCPUS_MAX: u64 = 1024;
const IMAGE_CHARS_MAX: usize = 64;
const SSH_KEY_BYTES_MAX: usize = 16 << 10;
const LABELS_MAX: usize = 32;
const LABEL_CHARS_MAX: usize = 255;

/// What CREATE may ask for beyond the documents; what is absent is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Create {
    /// `ttl`: seconds until the machine is taken back, at most ten years.
    pub ttl: Option<Duration>,
    /// `memory`, in MiB.
    pub memory_mb: Option<u32>,
    /// `vcpus`, at most 1024.
    pub vcpus: Option<u32>,
    /// `image`: a name of at most 64 letters, digits, `.`, `_`, `-`, the first of them no `.`.
    pub image: Option<String>,
    /// `ssh_public_key`: a line of an `authorized_keys` file, without options.
    pub ssh_public_key: Option<String>,
    /// `labels`: at most 32 texts by name, each of at most 255 characters.
    pub labels: BTreeMap<String, String>,
}

/// Which machine DESTROY means.
#[derive(Debug, Clone)]
pub struct Destroy {
    /// Lower-case hexadecimal digits, 8-4-4-4-12.
    pub uuid: String,
    /// 255 characters.
    pub token: Secret,
}

/// Both credentials have their form, and each comes with the other.
pub(super) fn check_credentials(parameters: &Map<String, Value>, errors: &mut Errors) {
    for (name, other) in [(UUID, TOKEN), (TOKEN, UUID)] {
        let rule = if name == UUID { UUID_RULE } else { TOKEN_RULE };
        let fits = |text: &str| if name == UUID { is_uuid(text) } else { is_token(text) };
        match parameters.get(name) {
            None => continue,
            Some(Value::String(text)) if fits(text) => {}
            Some(Value::String(_)) => errors.parameter(name, rule),
            wrong => errors.parameter(name, type_complaint(wrong, "string")),
        }
        if !parameters.contains_key(other) {
            errors.parameter(name, format!("field '{other}' is required"));
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 36
        && text.bytes().enumerate().all(|(index, c)| match index {
            8 | 13 | 18 | 23 => c == b'-',
            _ => hex(c),
        })
}

fn is_token(text: &str) -> bool {
    text.len() == 255 && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
}

pub(super) fn destroy(parameters: &Map<String, Value>) -> Result<Destroy, Errors> {
    let mut errors = Errors::default();
    let mut text = |name: &str| {
        let text = parameters.get(name).and_then(Value::as_str);
        if text.is_none() {
            errors.parameter(name, "required field");
        }
        text.unwrap_or_default().to_owned()
    };
    let (uuid, token) = (text(UUID), Secret::new(text(TOKEN)));
    if errors.is_empty() { Ok(Destroy { uuid, token }) } else { Err(errors) }
}

pub(super) fn create(parameters: &Map<String, Value>) -> Result<Create, Errors> {
    let mut reader = Reader { parameters, errors: Errors::default() };
    let create = Create {
        ttl: reader.number("ttl", TTL_SECS_MAX).map(Duration::from_secs),
        memory_mb: reader.number("memory", MEMORY_MB_MAX).and_then(|n| u32::try_from(n).ok()),
        vcpus: reader.number("vcpus", VCPUS_MAX).and_then(|n| u32::try_from(n).ok()),
        image: reader.text("image", is_image, "must be the name of an image"),
        ssh_public_key: reader.text(
            "ssh_public_key",
            is_ssh_key,
            "must be one public key as in an authorized_keys file, without options",
        ),
        labels: reader.labels(),
    };
    if reader.errors.is_empty() { Ok(create) } else { Err(reader.errors) }
}

struct Reader<'a> {
    parameters: &'a Map<String, Value>,
    errors: Errors,
}

impl Reader<'_> {
    fn number(&mut self, name: &str, greatest: u64) -> Option<u64> {
        let value = self.parameters.get(name)?;
        let number = value.as_u64().filter(|number| (1..=greatest).contains(number));
        if number.is_none() {
            let complaint = match value {
                Value::Number(_) => format!("must be a whole number from 1 to {greatest}"),
                other => type_complaint(Some(other), "integer"),
            };
            self.errors.parameter(name, complaint);
        }
        number
    }

    fn text(&mut self, name: &str, fits: fn(&str) -> bool, rule: &str) -> Option<String> {
        match self.parameters.get(name)? {
            Value::String(text) if fits(text.trim_end()) => {
                return Some(text.trim_end().to_owned());
            }
            Value::String(_) => self.errors.parameter(name, rule),
            other => self.errors.parameter(name, type_complaint(Some(other), "string")),
        }
        None
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let members = match self.parameters.get("labels") {
            None => return BTreeMap::new(),
            Some(Value::Object(members)) if members.len() <= LABELS_MAX => members,
            Some(Value::Object(_)) => {
                self.errors.parameter("labels", format!("at most {LABELS_MAX} are kept"));
                return BTreeMap::new();
            }
            other => {
                self.errors.parameter("labels", type_complaint(other, "dict"));
                return BTreeMap::new();
            }
        };
        let label = |text: &str| {
            text.chars().count() <= LABEL_CHARS_MAX && !text.contains(char::is_control)
        };
        let mut labels = BTreeMap::new();
        for (name, value) in members {
            match value {
                Value::String(text) if label(text) && label(name) && !name.is_empty() => {
                    labels.insert(name.clone(), text.clone());
                }
                _ => {
                    let rule = format!("texts of at most {LABEL_CHARS_MAX} characters");
                    self.errors.parameter("labels", rule);
                    break;
                }
            }
        }
        labels
    }
}

fn is_image(name: &str) -> bool {
    (1..=IMAGE_CHARS_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// One line: a known type, base64, perhaps a comment. Options would let the key's owner do more than the image wants.
fn is_ssh_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
    line.len() <= SSH_KEY_BYTES_MAX
        && !line.contains(char::is_control)
        && known.iter().any(|prefix| kind.starts_with(prefix))
        && kind.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'@' | b'.'))
        && key.starts_with("AAAA")
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'='))
}
