//! Cross-origin requests: which pages may read our answers. Pure.
//!
//! Invariant: an origin that is not listed gets no CORS header at all, so its page reads nothing.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use plugins::call::Body;

use super::error;
use crate::config::Cors;

const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";
const HEADERS: &str = "Content-Type, Authorization, X-Requested-With, X-Custom-Auth, Accept";
const EXPOSED: &str = "X-Custom-Header, Content-Length, X-Request-Id";
const MAX_AGE_SECS: &str = "3600";

/// Which origins may ask.
#[derive(Debug)]
pub struct CorsPolicy {
    origins: Vec<String>,
    any: bool,
}

impl CorsPolicy {
    /// The policy that the configuration sets.
    #[must_use]
    pub fn of(cors: &Cors) -> Self {
        let plain = |origin: &String| origin.trim_end_matches('/').to_ascii_lowercase();
        Self {
            origins: cors.origins.iter().map(plain).collect(),
            any: cors.origins.iter().any(|origin| origin == "*"),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        // Scheme and host are lower-case in what browsers send; a listed one may be written otherwise.
        origin.to_str().is_ok_and(|origin| {
            let origin = origin.to_ascii_lowercase();
            self.any || self.origins.contains(&origin)
        })
    }

    /// The answer to a preflight request; `None` when the request is none.
    #[must_use]
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<http::Response<Body>> {
        let origin = headers.get(header::ORIGIN)?;
        if method != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        if !self.allows(origin) {
            return Some(error::response(StatusCode::FORBIDDEN, "this origin may not ask"));
        }
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let fixed: [(HeaderName, &'static str); 3] = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS),
        ];
        for (name, value) in fixed {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }

    /// Adds the headers for a request from `origin` to its answer, whatever the answer is.
    pub fn decorate(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        // Also without an origin: a cache must not give this answer to a page of another one.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &[&str], origin: &str, allowed: bool) {
        let cors = Cors { origins: listed.iter().map(ToString::to_string).collect() };
        let policy = CorsPolicy::of(&cors);
        let origin = HeaderValue::from_str(origin).unwrap();
        let mut headers = HeaderMap::new();
        policy.decorate(Some(&origin), &mut headers);
        assert_eq!(headers.get("access-control-allow-origin").is_some(), allowed, "{origin:?}");
        assert_eq!(headers["vary"], "Origin");
        headers.clear();
        headers.insert("origin", origin);
        headers.insert("access-control-request-method", HeaderValue::from_static("POST"));
        let preflight = policy.preflight(&Method::OPTIONS, &headers).unwrap();
        let status = if allowed { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
        assert_eq!(preflight.status(), status);
    }

    #[test]
    fn only_listed_origins_are_answered() {
        check(&["https://a.example"], "https://a.example", true);
        check(&["https://A.example/"], "https://a.example", true);
        check(&["https://a.example"], "http://a.example", false);
        check(&["https://a.example"], "https://a.example.evil.example", false);
        check(&["https://a.example"], "null", false);
        check(&["*"], "https://any.example", true);
    }
}
