//! Pages of other origins: which of them may call the service from a browser (the Fetch standard's CORS protocol).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::settings::CorsOrigins;

/// Headers of ours that a page may read, besides those that every page may.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Location, Retry-After, X-Request-Id, Link, Preference-Applied");

/// Headers that a page may send.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, X-API-Key, Content-Type, Idempotency-Key, Prefer, X-Request-Id",
);

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The allowed origin of a request's page, kept until there is an answer to put it into.
#[derive(Default)]
pub(super) struct Cors {
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether the answer depends on the origin, allowed or not.
    varies: bool,
}

impl Cors {
    pub(super) fn of(headers: &HeaderMap, allowed: &CorsOrigins) -> Self {
        if allowed.is_empty() {
            return Self::default();
        }
        let origin = headers.get(ORIGIN);
        let origin = origin.filter(|o| o.to_str().is_ok_and(|text| allowed.allows(text)));
        Self {
            is_preflight: headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
            origin: origin.cloned(),
            varies: true,
        }
    }

    /// Tells the browser that the page may see this answer. `methods`: those of an `OPTIONS` request's path.
    pub(super) fn apply(self, answer: &mut HeaderMap, methods: Option<&str>) {
        if self.varies {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        match methods.and_then(|methods| HeaderValue::from_str(methods).ok()) {
            Some(methods) if self.is_preflight => {
                answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
                answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            }
            _ => {
                answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
        }
    }
}
