//! Requests and answers: JSON, its rules, and the texts that each generation knows.
//!
//! Invariant: a [`Request`] keeps the rules of the protocol; an answer always has its three keys.
//! Not here: encryption, and what a verb does.

use serde_json::{Map, Value, json};

use super::errors::Errors;
use super::frame::Generation;
use super::parameters::{self, Create, Destroy};
use crate::Secret;

/// The verb by which a machine is asked for.
pub const REQUEST_VERB_CREATE: &str = "CREATE";
/// The verb by which one is given back.
pub const REQUEST_VERB_DESTROY: &str = "DESTROY";
/// The verb by which the server is asked how it is.
pub const REQUEST_VERB_STAT: &str = "STAT";
/// The request was carried out.
pub const RESPONSE_MSG_OK: &str = "OK";
/// The credentials are wrong.
pub const RESPONSE_MSG_BAD_AUTH: &str = "Bad authentication";
/// The request is malformed.
pub const RESPONSE_MSG_BAD_REQ: &str = "Bad request";
/// The request was refused.
pub const RESPONSE_MSG_REFUSED_REQ: &str = "Refused request";
/// The server cannot do it now.
pub const RESPONSE_MSG_UNAVAILABLE: &str = "Unavailable";
/// The server failed.
pub const RESPONSE_MSG_INTERNAL_ERROR: &str = "Internal error";

/// The parameter with an access token.
pub const ACCESS_TOKEN: &str = "access_token";

/// The longest verb, in bytes.
const VERB_BYTES_MAX: usize = 64;
/// The longest access token, in bytes; ours have 124.
const ACCESS_TOKEN_BYTES_MAX: usize = 1024;

/// A request that keeps the rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// One or more of A to Z.
    pub verb: String,
    /// What came with it, unknown parameters too.
    pub parameters: Map<String, Value>,
}

/// Without the values of parameters: there are tokens among them.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.parameters.keys().collect();
        f.debug_struct("Request").field("verb", &self.verb).field("parameters", &names).finish()
    }
}

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// They did not decrypt, are not JSON, or not an object.
    NotAnObject,
    /// A rule is broken.
    Malformed(Errors),
}

/// Whether `text` can be a verb: one to 64 of A to Z.
#[must_use]
pub fn is_verb(text: &str) -> bool {
    (1..=VERB_BYTES_MAX).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_uppercase())
}

impl Request {
    /// Reads a decrypted request.
    ///
    /// # Errors
    /// When it is not an object of JSON, or breaks a rule.
    pub fn parse(plain: &[u8]) -> Result<Self, Unreadable> {
        let Ok(Value::Object(members)) = serde_json::from_slice(plain) else {
            return Err(Unreadable::NotAnObject);
        };
        Self::from_members(members)
    }

    /// Makes a request of an upper-case verb and the parameters that came with it in another way than this protocol's.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn new(verb: &str, parameters: Map<String, Value>) -> Result<Self, Errors> {
        let members = [("verb", verb.into()), ("parameters", Value::Object(parameters))];
        let members = members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        Self::from_members(members).map_err(|error| match error {
            Unreadable::Malformed(errors) => errors,
            Unreadable::NotAnObject => Errors::default(),
        })
    }

    fn from_members(mut members: Map<String, Value>) -> Result<Self, Unreadable> {
        let mut errors = Errors::default();
        let verb = match members.remove("verb") {
            Some(Value::String(verb)) if is_verb(&verb) => verb,
            other => {
                errors.field("verb", verb_complaint(other.as_ref()));
                String::new()
            }
        };
        let parameters = match members.remove("parameters") {
            Some(Value::Object(parameters)) => parameters,
            other => {
                errors.field("parameters", type_complaint(other.as_ref(), "dict"));
                Map::new()
            }
        };
        parameters::check_credentials(&parameters, &mut errors);
        check_access_token(&parameters, &mut errors);
        if errors.is_empty() {
            Ok(Self { verb, parameters })
        } else {
            Err(Unreadable::Malformed(errors))
        }
    }

    /// The access token that came along; an empty one counts as none.
    #[must_use]
    pub fn access_token(&self) -> Option<Secret> {
        let token = self.parameters.get(ACCESS_TOKEN)?.as_str()?;
        (!token.is_empty()).then(|| Secret::new(token))
    }

    /// What CREATE asks for beyond the documented.
    ///
    /// # Errors
    /// When a parameter is out of its limits.
    pub fn create(&self) -> Result<Create, Errors> {
        parameters::create(&self.parameters)
    }

    /// Which machine DESTROY means.
    ///
    /// # Errors
    /// When id or token are missing.
    pub fn destroy(&self) -> Result<Destroy, Errors> {
        parameters::destroy(&self.parameters)
    }

    /// As it is sent.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "verb": self.verb, "parameters": self.parameters })
    }
}

fn verb_complaint(verb: Option<&Value>) -> String {
    match verb {
        Some(Value::String(text)) if text.len() > VERB_BYTES_MAX => {
            format!("max length is {VERB_BYTES_MAX}")
        }
        Some(Value::String(_)) => "value does not match regex '^[A-Z]{1,}$'".to_owned(),
        other => type_complaint(other, "string"),
    }
}

/// What is wrong with a value that is missing, null or of another type.
pub(super) fn type_complaint(value: Option<&Value>, expected: &str) -> String {
    match value {
        None => "required field".to_owned(),
        Some(Value::Null) => "null value not allowed".to_owned(),
        Some(_) => format!("must be of {expected} type"),
    }
}

fn check_access_token(parameters: &Map<String, Value>, errors: &mut Errors) {
    match parameters.get(ACCESS_TOKEN) {
        None => {}
        Some(Value::String(token)) if token.len() <= ACCESS_TOKEN_BYTES_MAX => {}
        Some(Value::String(_)) => {
            errors.parameter(ACCESS_TOKEN, format!("max length is {ACCESS_TOKEN_BYTES_MAX}"));
        }
        other => errors.parameter(ACCESS_TOKEN, type_complaint(other, "string")),
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Whether the request was carried out.
    pub success: bool,
    /// For people; programs only print it.
    pub message: String,
    /// What was asked for; empty without success.
    pub data: Map<String, Value>,
}

impl Response {
    /// Success, with what was asked for.
    #[must_use]
    pub fn ok(data: Map<String, Value>) -> Self {
        Self { success: true, message: RESPONSE_MSG_OK.to_owned(), data }
    }

    /// No success, in the words that programs of `generation` know.
    #[must_use]
    pub fn refuse(complaint: &Complaint<'_>, generation: Generation) -> Self {
        Self { success: false, message: complaint.text(generation), data: Map::new() }
    }

    /// A base text with its reason in parentheses.
    #[must_use]
    pub fn message(base: &str, reason: Option<&str>) -> String {
        reason.map_or_else(|| base.to_owned(), |reason| format!("{base} ({reason})"))
    }

    /// As it is sent.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "success": self.success, "message": self.message, "data": self.data })
    }

    /// Reads a decrypted answer; `None` when it is none.
    #[must_use]
    pub fn parse(plain: &[u8]) -> Option<Self> {
        let Value::Object(mut members) = serde_json::from_slice(plain).ok()? else { return None };
        let (Value::Bool(success), Value::String(message), Value::Object(data)) =
            (members.remove("success")?, members.remove("message")?, members.remove("data")?)
        else {
            return None;
        };
        Some(Self { success, message, data })
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint<'a> {
    /// It breaks a rule.
    Malformed(&'a Errors),
    /// Nothing is known by this verb.
    UnknownVerb,
    /// There is no machine with this id and token.
    BadCredentials,
    /// All places are taken.
    NoPlace,
    /// It can not be done now, for this reason.
    Unavailable(&'a str),
    /// An access token is needed.
    AccessTokenRequired,
    /// The access token is not one, or is disabled.
    AccessTokenInvalid,
    /// The address may not ask.
    Refused,
    /// Something about it is wrong, in these words.
    Bad(&'a str),
    /// The server failed.
    Internal,
}

impl Complaint<'_> {
    /// The documented text.
    #[must_use]
    pub fn text(&self, generation: Generation) -> String {
        let is_old = generation.has_old_texts();
        let (base, reason) = match self {
            Self::Malformed(errors) if is_old => {
                let reason = format!("Malformed request : {errors}");
                return Response::message(RESPONSE_MSG_BAD_REQ, Some(&reason));
            }
            Self::Malformed(_) => (RESPONSE_MSG_BAD_REQ, Some("Malformed request")),
            Self::UnknownVerb if is_old => (RESPONSE_MSG_BAD_REQ, Some("Unknown verb")),
            Self::UnknownVerb => (RESPONSE_MSG_BAD_REQ, Some("Unhandled verb")),
            Self::BadCredentials => (RESPONSE_MSG_BAD_AUTH, None),
            Self::NoPlace if is_old => {
                (RESPONSE_MSG_UNAVAILABLE, Some("Running containers maximum amount was reached"))
            }
            Self::NoPlace => (
                RESPONSE_MSG_UNAVAILABLE,
                Some(
                    "The maximum allowed amount of running containers has been reached on the server",
                ),
            ),
            Self::Unavailable(reason) => (RESPONSE_MSG_UNAVAILABLE, Some(*reason)),
            Self::AccessTokenRequired => (RESPONSE_MSG_BAD_REQ, Some("Access token is required")),
            Self::AccessTokenInvalid => (RESPONSE_MSG_BAD_AUTH, Some("Invalid access token")),
            Self::Refused => (RESPONSE_MSG_REFUSED_REQ, None),
            Self::Bad(reason) => (RESPONSE_MSG_BAD_REQ, Some(*reason)),
            Self::Internal => (RESPONSE_MSG_INTERNAL_ERROR, None),
        };
        Response::message(base, reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Complaint, Generation, Request, Response, Unreadable};

    /// What is wrong with `request`, as the programs 1.x print it; empty where nothing is.
    #[track_caller]
    fn check(request: &Value, expected: &str) {
        match Request::parse(request.to_string().as_bytes()) {
            Ok(read) => assert_eq!((read.to_json(), ""), (request.clone(), expected)),
            Err(Unreadable::Malformed(errors)) => assert_eq!(errors.to_string(), expected),
            Err(Unreadable::NotAnObject) => assert_eq!("not an object", expected),
        }
    }

    fn with(parameters: &Value) -> Value {
        json!({ "verb": "DESTROY", "parameters": parameters })
    }

    const UUID: &str = "0123abcd-0123-4567-89ab-0123456789ab";

    #[test]
    fn a_request_keeps_the_rules_or_is_told_which_it_breaks() {
        check(&json!({ "verb": "STAT", "parameters": {} }), "");
        check(&json!({ "verb": "MY", "parameters": { "what": [1] } }), "");
        check(&json!([]), "not an object");
        check(&json!("STAT"), "not an object");
        check(&json!({}), "{'parameters': ['required field'], 'verb': ['required field']}");
        check(
            &json!({ "verb": null, "parameters": null }),
            "{'parameters': ['null value not allowed'], 'verb': ['null value not allowed']}",
        );
        check(
            &json!({ "verb": 5, "parameters": [] }),
            "{'parameters': ['must be of dict type'], 'verb': ['must be of string type']}",
        );
        for verb in ["", "stat", "STAT ", "ST4T", "ÄÖ", "STAT\n"] {
            check(
                &json!({ "verb": verb, "parameters": {} }),
                "{'verb': [\"value does not match regex '^[A-Z]{1,}$'\"]}",
            );
        }
        let long = json!({ "verb": "A".repeat(65), "parameters": {} });
        check(&long, "{'verb': ['max length is 64']}");
    }

    #[test]
    fn credentials_have_their_form_and_come_together() {
        let token = "-_aZ9".repeat(51);
        let both = json!({ "container_uuid": UUID, "client_token": token });
        check(&with(&both), "");
        let uuid_rule = "value does not match regex '^[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}$'";
        let upper = json!({ "container_uuid": UUID.to_uppercase(), "client_token": token });
        check(
            &with(&upper),
            &format!("{{'parameters': [{{'container_uuid': [\"{uuid_rule}\"]}}]}}"),
        );
        let short = json!({ "container_uuid": UUID, "client_token": token[1..] });
        let token_rule = "value does not match regex '^[a-zA-Z0-9-_]{255}$'";
        check(
            &with(&short),
            &format!("{{'parameters': [{{'client_token': [\"{token_rule}\"]}}]}}"),
        );
        check(
            &with(&json!({ "container_uuid": UUID })),
            "{'parameters': [{'container_uuid': [\"field 'client_token' is required\"]}]}",
        );
        check(
            &with(&json!({ "client_token": null, "container_uuid": 1 })),
            "{'parameters': [{'client_token': ['null value not allowed'], 'container_uuid': ['must be of string type']}]}",
        );
        check(
            &with(&json!({ "access_token": 7 })),
            "{'parameters': [{'access_token': ['must be of string type']}]}",
        );
        let none = Request::parse(with(&json!({})).to_string().as_bytes()).unwrap();
        assert_eq!(none.destroy().unwrap_err().parameters.len(), 2);
        assert!(none.access_token().is_none());
        let request = Request::parse(with(&both).to_string().as_bytes()).unwrap();
        assert_eq!(request.destroy().unwrap().uuid, UUID);
        assert!(!format!("{request:?}").contains(&token), "a token is not for logs");
    }

    #[test]
    fn what_create_may_ask_for_is_within_limits() {
        let check = |parameters: Value, expected: &str| {
            let request = json!({ "verb": "CREATE", "parameters": parameters });
            let request = Request::parse(request.to_string().as_bytes()).unwrap();
            let found = match request.create() {
                Ok(create) => format!("{create:?}"),
                Err(errors) => errors.to_json()["parameters"].to_string(),
            };
            assert!(found.contains(expected), "{found}");
        };
        check(json!({ "ttl": 60 }), "ttl: Some(60s)");
        check(json!({ "memory": 512, "vcpus": 2 }), "memory_mb: Some(512), vcpus: Some(2)");
        check(json!({ "image": "debian-12" }), "image: Some(\"debian-12\")");
        check(json!({ "labels": { "a": "b" } }), "labels: {\"a\": \"b\"}");
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here";
        check(json!({ "ssh_public_key": format!("{key}\n") }), key);
        for number in [json!(0), json!(-1), json!(1.5), json!(1e15), json!(u64::MAX)] {
            check(json!({ "ttl": number }), "must be a whole number from 1 to 316224000");
            check(json!({ "vcpus": number }), "must be a whole number from 1 to 1024");
        }
        check(json!({ "memory": "512" }), "must be of integer type");
        for image in ["", "../x", "a/b", ".hidden", "a b"] {
            check(json!({ "image": image }), "must be the name of an image");
        }
        for key in
            ["", "AAAA", "ssh-rsa", "command=\"x\" ssh-rsa AAAA", "ssh-rsa AAAA\nssh-rsa AAAA"]
        {
            check(json!({ "ssh_public_key": key }), "must be one public key");
        }
        check(json!({ "labels": { "a": 1 } }), "texts of at most 255");
        check(json!({ "labels": { "": "a" } }), "texts of at most 255");
        check(json!({ "labels": { "a": "x".repeat(256) } }), "texts of at most 255");
        let many: Value =
            (0..33).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
        check(json!({ "labels": many }), "at most 32");
    }

    #[test]
    fn complaints_are_worded_as_each_generation_knows_them() {
        let check = |complaint: Complaint<'_>, one: &str, four: &str| {
            let text = |generation| Response::refuse(&complaint, generation).message;
            assert_eq!(text(Generation::One), one);
            assert_eq!(text(Generation::Three), four);
            assert_eq!(text(Generation::Four), four);
        };
        let mut errors = super::Errors::default();
        errors.field("verb", "required field");
        check(
            Complaint::Malformed(&errors),
            "Bad request (Malformed request : {'verb': ['required field']})",
            "Bad request (Malformed request)",
        );
        check(Complaint::UnknownVerb, "Bad request (Unknown verb)", "Bad request (Unhandled verb)");
        check(Complaint::BadCredentials, "Bad authentication", "Bad authentication");
        check(
            Complaint::NoPlace,
            "Unavailable (Running containers maximum amount was reached)",
            "Unavailable (The maximum allowed amount of running containers has been reached on the server)",
        );
        for (complaint, text) in [
            (Complaint::AccessTokenRequired, "Bad request (Access token is required)"),
            (Complaint::AccessTokenInvalid, "Bad authentication (Invalid access token)"),
            (Complaint::Refused, "Refused request"),
            (Complaint::Internal, "Internal error"),
            (Complaint::Bad("why"), "Bad request (why)"),
            (Complaint::Unavailable("why"), "Unavailable (why)"),
        ] {
            check(complaint, text, text);
        }
    }

    #[test]
    fn an_answer_has_its_three_keys() {
        let refused = Response::refuse(&Complaint::Internal, Generation::Four).to_json();
        assert_eq!(refused, json!({ "success": false, "message": "Internal error", "data": {} }));
        assert_eq!(Response::parse(refused.to_string().as_bytes()).unwrap().to_json(), refused);
        for wrong in ["", "[]", "{}", r#"{"success":1,"message":"","data":{}}"#] {
            assert_eq!(Response::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
