//! Cross-origin requests from browsers (the CORS protocol of the Fetch standard).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::settings::CorsOrigins;

/// Response headers that a page may read, besides those that the standard always allows.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Location, Retry-After, X-Request-Id, Link, Preference-Applied");

/// Request headers that a page may send.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, X-API-Key, Content-Type, Idempotency-Key, Prefer, Last-Event-ID, X-Request-Id",
);

/// How long a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What the response to a request needs for CORS.
#[derive(Default)]
pub(super) struct Cors {
    /// The request's origin, if it is allowed.
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether the response depends on the origin, allowed or not.
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

    /// Adds the headers of the response. `methods`: the methods of the path if the request is `OPTIONS`.
    pub(super) fn apply(self, response: &mut HeaderMap, methods: Option<&str>) {
        if self.varies {
            response.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else { return };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        match methods.and_then(|methods| HeaderValue::from_str(methods).ok()) {
            Some(methods) if self.is_preflight => {
                response.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
                response.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
                response.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            }
            _ => {
                response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
        }
    }
}
