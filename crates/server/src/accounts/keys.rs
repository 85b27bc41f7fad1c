//! Finds the key that a request carries and tells whether it opens what is asked for.
//!
//! Invariant: the first place that holds a key decides, so a wrong key in a header is not mended by a
//! right one in the query. Keys are compared in constant time and never leave this module.
//! Places, in order (the documents name them): `Authorization: Bearer`, `X-Custom-Auth`, `apikey` in a
//! JSON or form body, `apikey` in the query.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use plugins::call::FormValue;
use plugins::parameters::Access;
use wire::Secret;

/// What a request shows of itself.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query, as it came.
    pub query: Option<&'a str>,
    /// Whether it comes from this machine, and not from a page of somewhere else in a browser here (see
    /// [`is_local`]).
    pub is_local: bool,
}

/// Whether a request comes from this machine by the will of somebody on it. A browser here also sends
/// requests that foreign pages make, and says so (`Origin`, `Sec-Fetch-Site`), or shows it by a host name
/// that somebody points to this machine (`Host`).
#[must_use]
pub fn is_local(client: IpAddr, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let own_origin = text("origin").is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, host)| is_loopback_name(host))
    });
    // A page can only be led here by a name in the public tree, and those have dots.
    let own_host = text("host").is_none_or(|host| is_loopback_name(host) || !host.contains('.'));
    client.is_loopback() && !is_of_foreign_page(headers) && own_origin && own_host
}

/// Whether a browser says that a page from elsewhere makes this request.
#[must_use]
pub fn is_of_foreign_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
    site.is_some_and(|site| !matches!(site, "none" | "same-origin"))
}

/// Whether `host`, perhaps with a port, can only mean this machine.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// What is known before the body has been read.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Come in.
    Granted,
    /// Stay out.
    Refused,
    /// A key may still be in the body.
    AskBody,
}

/// Whether `access` is open to the bearer of `evidence`, as far as its head tells. `may_have_body` says
/// whether a body is to come.
#[must_use]
pub fn judge(
    access: &Access,
    global: Option<&Secret>,
    evidence: &Evidence<'_>,
    may_have_body: bool,
) -> Verdict {
    let expected = match expected(access, global, evidence.is_local) {
        Expected::Nothing => return Verdict::Granted,
        Expected::Impossible => return Verdict::Refused,
        Expected::Key(key) => key,
    };
    match key_in_headers(evidence.headers) {
        Some(key) => verdict(expected, &key),
        None if may_have_body => Verdict::AskBody,
        None => judge_query(expected, evidence.query),
    }
}

/// The same once the body is known; `body_key` is the `apikey` in it.
#[must_use]
pub fn judge_with_body(
    access: &Access,
    global: Option<&Secret>,
    evidence: &Evidence<'_>,
    body_key: Option<&str>,
) -> Verdict {
    match (expected(access, global, evidence.is_local), body_key) {
        (Expected::Nothing, _) => Verdict::Granted,
        (Expected::Impossible, _) => Verdict::Refused,
        (Expected::Key(key), Some(given)) => verdict(key, given),
        (Expected::Key(key), None) => judge_query(key, evidence.query),
    }
}

enum Expected<'a> {
    Nothing,
    Impossible,
    Key(&'a Secret),
}

fn expected<'a>(access: &'a Access, global: Option<&'a Secret>, is_local: bool) -> Expected<'a> {
    match (access, global) {
        (Access::Open, _) => Expected::Nothing,
        (Access::Nobody, _) | (Access::Global, None) => Expected::Impossible,
        (Access::Own(key), _) | (Access::Global | Access::Local, Some(key)) => Expected::Key(key),
        (Access::Local, None) if is_local => Expected::Nothing,
        (Access::Local, None) => Expected::Impossible,
    }
}

fn verdict(expected: &Secret, given: &str) -> Verdict {
    if expected.matches(given) { Verdict::Granted } else { Verdict::Refused }
}

fn judge_query(expected: &Secret, query: Option<&str>) -> Verdict {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let key = pairs.into_iter().find(|(name, _)| name == "apikey").map(|(_, key)| key);
    key.map_or(Verdict::Refused, |key| verdict(expected, &key))
}

fn key_in_headers(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let text =
        |value: &'_ http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = text(value);
        if let Some((scheme, key)) = value.split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
        {
            return Some(key.trim().to_owned().into());
        }
    }
    headers.get("x-custom-auth").map(|value| text(value).trim().to_owned().into())
}

/// The `apikey` in a body: a member of a JSON object, or a field of a form.
#[must_use]
pub fn key_in_body(body: &[u8], form: Option<&[(String, FormValue)]>) -> Option<String> {
    if body.trim_ascii_start().first() == Some(&b'{') {
        #[derive(serde::Deserialize)]
        struct Keyed {
            apikey: Option<serde_json::Value>,
        }
        if let Ok(keyed) = serde_json::from_slice::<Keyed>(body) {
            return keyed.apikey.map(|key| match key {
                serde_json::Value::String(key) => key,
                other => other.to_string(),
            });
        }
    }
    let field = form?.iter().find(|(name, _)| name == "apikey");
    field.and_then(|(_, value)| match value {
        FormValue::Text(key) => Some(key.clone()),
        FormValue::File(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], body_key: Option<&str>, query: &str, expected: Verdict) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let evidence = Evidence { headers: &map, query: Some(query), is_local: true };
        let access = Access::Own(Secret::new("right"));
        let mut found = judge(&access, None, &evidence, body_key.is_some());
        if found == Verdict::AskBody {
            found = judge_with_body(&access, None, &evidence, body_key);
        }
        assert_eq!(found, expected, "{headers:?} {body_key:?} {query:?}");
    }

    #[test]
    fn the_first_place_that_holds_a_key_decides() {
        use Verdict::{Granted, Refused};
        check(&[("Authorization", "Bearer right")], None, "", Granted);
        check(&[("authorization", "bearer right")], None, "", Granted);
        check(&[("Authorization", "Bearer wrong")], Some("right"), "apikey=right", Refused);
        check(&[("Authorization", "Basic xyz"), ("X-Custom-Auth", "right")], None, "", Granted);
        check(&[("X-Custom-Auth", "wrong")], Some("right"), "", Refused);
        check(&[], Some("right"), "apikey=wrong", Granted);
        check(&[], Some("wrong"), "apikey=right", Refused);
        check(&[], None, "apikey=right", Granted);
        check(&[], None, "a=b&apikey=r%69ght", Granted);
        check(&[], None, "", Refused);
        check(&[("Authorization", "Bearer ")], None, "apikey=right", Refused);
    }

    #[test]
    fn without_a_global_key_only_what_is_open_or_local_answers() {
        let headers = HeaderMap::new();
        let from = |is_local| Evidence { headers: &headers, query: None, is_local };
        assert_eq!(judge(&Access::Open, None, &from(false), true), Verdict::Granted);
        assert_eq!(judge(&Access::Local, None, &from(true), true), Verdict::Granted);
        assert_eq!(judge(&Access::Local, None, &from(false), true), Verdict::Refused);
        assert_eq!(judge(&Access::Global, None, &from(true), true), Verdict::Refused);
        assert_eq!(judge(&Access::Nobody, None, &from(true), true), Verdict::Refused);
        let key = Secret::new("k");
        assert_eq!(judge(&Access::Local, Some(&key), &from(true), false), Verdict::Refused);
    }

    #[test]
    fn pages_of_elsewhere_are_not_this_machine() {
        let check = |headers: &[(&'static str, &str)], expected: bool| {
            let pairs = headers.iter().map(|(name, value)| (*name, value.parse().unwrap()));
            let map = pairs.map(|(name, value)| (http::HeaderName::from_static(name), value));
            let map: HeaderMap = map.collect();
            assert_eq!(is_local("127.0.0.1".parse().unwrap(), &map), expected, "{headers:?}");
        };
        check(&[], true);
        for host in ["localhost", "LOCALHOST:9192", "127.0.0.1:1", "[::1]:9192", "127.8.8.8"] {
            check(&[("host", host)], true);
        }
        for host in ["evil.example", "localhost.evil.example:80", "10.0.0.1"] {
            check(&[("host", host)], false);
        }
        check(&[("origin", "http://localhost:9192")], true);
        check(&[("origin", "https://evil.example")], false);
        check(&[("origin", "null")], false);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "cross-site")], false);
        assert!(!is_local("192.0.2.1".parse().unwrap(), &HeaderMap::new()));
    }

    #[test]
    fn a_key_is_found_in_either_kind_of_body() {
        let form = [("apikey".to_owned(), FormValue::Text("k".into()))];
        assert_eq!(key_in_body(br#" {"a": [1], "apikey": "k"}"#, None).as_deref(), Some("k"));
        assert_eq!(key_in_body(br#"{"apikey": 12}"#, None).as_deref(), Some("12"));
        assert_eq!(key_in_body(b"apikey=k", Some(&form)).as_deref(), Some("k"));
        assert_eq!(key_in_body(b"{broken", Some(&form)).as_deref(), Some("k"));
        assert_eq!(key_in_body(b"", None), None);
    }
}
