//! The routes: from method and path to a handler.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::api_error::ApiError;

/// What stands for an unknown route in metrics and logs. All unknown routes share it, so that clients cannot create time series.
pub(super) const OTHER: &str = "other";

/// A request by its method and path. Ids are not parsed here, because credentials are checked before them.
#[derive(Clone, Copy)]
pub(super) enum Route<'a> {
    Health,
    Ready,
    OpenApi,
    Docs,
    DocsScript,
    Metrics,
    DeviceReports,
    Feed,
    Locks,
    AllWrites,
    WriteKey(&'a str),
    Details(&'a str),
    Events(&'a str),
    Writes(&'a str),
    Write(&'a str, &'a str),
    Withdraw(&'a str, &'a str),
    Webhooks,
    RegisterWebhook,
    Webhook(&'a str),
    ChangeWebhook(&'a str),
    RemoveWebhook(&'a str),
    RotateWebhookSecret(&'a str),
    TestWebhook(&'a str),
    WebhookDeliveries(&'a str),
    ReplayWebhook(&'a str),
    /// A page for operators, which has routes of its own.
    Admin,
    /// `OPTIONS` of a path, with the methods of the path.
    Options(&'static str),
}

impl Route<'_> {
    /// The route in metrics and logs: the path, without ids.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::DocsScript => "/docs/scalar.js",
            Self::Metrics => "/metrics",
            Self::DeviceReports => "/device-reports",
            Self::Feed => "/events",
            Self::Locks => "/locks",
            Self::AllWrites => "/writes",
            Self::WriteKey(_) => "/locks/{id}/WriteKey",
            Self::Details(_) => "/locks/{id}/details",
            Self::Events(_) => "/locks/{id}/events",
            Self::Writes(_) => "/locks/{id}/writes",
            Self::Write(..) => "/locks/{id}/writes/{writeId}",
            Self::Withdraw(..) => "DELETE /locks/{id}/writes/{writeId}",
            Self::Webhooks => "/webhooks",
            Self::RegisterWebhook => "POST /webhooks",
            Self::Webhook(_) => "/webhooks/{id}",
            Self::ChangeWebhook(_) => "PATCH /webhooks/{id}",
            Self::RemoveWebhook(_) => "DELETE /webhooks/{id}",
            Self::RotateWebhookSecret(_) => "/webhooks/{id}/rotate-secret",
            Self::TestWebhook(_) => "/webhooks/{id}/test",
            Self::WebhookDeliveries(_) => "/webhooks/{id}/deliveries",
            Self::ReplayWebhook(_) => "/webhooks/{id}/replay",
            Self::Admin => "/admin",
            Self::Options(_) => "OPTIONS",
        }
    }

    /// Whether the request has a body of JSON, besides `WriteKey` and reports.
    pub(super) const fn has_json_body(&self) -> bool {
        matches!(
            self,
            Self::RegisterWebhook | Self::ChangeWebhook(_) | Self::ReplayWebhook(_)
        )
    }
}

/// Decodes the percent-encoding of a path (RFC 3986, section 6.2.2.2). Encoded slashes and dot segments are refused: a proxy in
/// front could take such a path for another route.
///
/// # Errors
/// 404 for a path that no route can have.
pub(super) fn decode(path: &str) -> Result<Cow<'_, str>, ApiError> {
    if !path.contains('%') {
        return Ok(path.into());
    }
    let segments = path.split('/').map(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8();
        decoded.map_err(|_| ApiError::NotFound)
    });
    let segments = segments.collect::<Result<Vec<_>, _>>()?;
    match segments
        .iter()
        .any(|s| s.contains('/') || matches!(&**s, "." | ".."))
    {
        true => Err(ApiError::NotFound),
        false => Ok(segments.join("/").into()),
    }
}

/// # Errors
/// 404 for an unknown path, 405 for a method that the path does not have.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, ApiError> {
    if path == "*" && *method == Method::OPTIONS {
        return Ok(Route::Options("GET, HEAD, POST, PATCH, DELETE, OPTIONS"));
    }
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    let parts = [(); 5].map(|()| parts.next());
    let (route, allowed) = match parts {
        [Some("admin"), ..] => return Ok(Route::Admin),
        [Some("healthz"), None, ..] => (Route::Health, "GET"),
        [Some("readyz"), None, ..] => (Route::Ready, "GET"),
        [Some("openapi.json"), None, ..] => (Route::OpenApi, "GET"),
        [Some("docs"), None, ..] => (Route::Docs, "GET"),
        [Some("docs"), Some("scalar.js"), None, ..] => (Route::DocsScript, "GET"),
        [Some("metrics"), None, ..] => (Route::Metrics, "GET"),
        [Some("device-reports"), None, ..] => (Route::DeviceReports, "POST"),
        [Some("events"), None, ..] => (Route::Feed, "GET"),
        [Some("locks"), None, ..] => (Route::Locks, "GET"),
        [Some("writes"), None, ..] => (Route::AllWrites, "GET"),
        [Some("locks"), Some(lock), Some("WriteKey"), None, _] => (Route::WriteKey(lock), "POST"),
        [Some("locks"), Some(lock), Some("details"), None, _] => (Route::Details(lock), "GET"),
        [Some("locks"), Some(lock), Some("events"), None, _] => (Route::Events(lock), "GET"),
        [Some("locks"), Some(lock), Some("writes"), None, _] => (Route::Writes(lock), "GET"),
        [Some("locks"), Some(lock), Some("writes"), Some(write), None] => match *method {
            Method::DELETE => (Route::Withdraw(lock, write), "DELETE"),
            _ => (Route::Write(lock, write), "GET"),
        },
        [Some("webhooks"), None, ..] => match *method {
            Method::POST => (Route::RegisterWebhook, "POST"),
            _ => (Route::Webhooks, "GET"),
        },
        [Some("webhooks"), Some(id), None, ..] => match *method {
            Method::PATCH => (Route::ChangeWebhook(id), "PATCH"),
            Method::DELETE => (Route::RemoveWebhook(id), "DELETE"),
            _ => (Route::Webhook(id), "GET"),
        },
        [Some("webhooks"), Some(id), Some(last), None, _] => match last {
            "rotate-secret" => (Route::RotateWebhookSecret(id), "POST"),
            "test" => (Route::TestWebhook(id), "POST"),
            "replay" => (Route::ReplayWebhook(id), "POST"),
            "deliveries" => (Route::WebhookDeliveries(id), "GET"),
            _ => return Err(ApiError::NotFound),
        },
        _ => return Err(ApiError::NotFound),
    };
    // A GET route also serves HEAD; the server omits the body.
    if method.as_str() == allowed || *method == Method::HEAD && allowed == "GET" {
        return Ok(route);
    }
    let allowed = match route {
        Route::Write(..) => "GET, HEAD, DELETE, OPTIONS",
        Route::Webhooks => "GET, HEAD, POST, OPTIONS",
        Route::Webhook(_) => "GET, HEAD, PATCH, DELETE, OPTIONS",
        _ if allowed == "GET" => "GET, HEAD, OPTIONS",
        _ => "POST, OPTIONS",
    };
    match *method {
        Method::OPTIONS => Ok(Route::Options(allowed)),
        _ => Err(ApiError::MethodNotAllowed(allowed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_paths_and_rejects_encoded_slashes_and_dot_segments() {
        for (path, decoded) in [
            ("/locks/123/details", "/locks/123/details"),
            ("/locks/%31%32%33/details", "/locks/123/details"),
            ("/%6cocks/1%20/details", "/locks/1 /details"),
            ("/locks/%zz", "/locks/%zz"),
        ] {
            assert_eq!(decode(path).expect(path), decoded);
        }
        for path in [
            "/locks/1%2fdetails",
            "/locks/%2e%2E/details",
            "/%2E/healthz",
            "/locks/%ff",
        ] {
            assert!(matches!(decode(path), Err(ApiError::NotFound)), "{path}");
        }
    }

    #[test]
    fn options_lists_the_methods_of_a_path() {
        let allowed = |path| match find(&Method::OPTIONS, path) {
            Ok(Route::Options(allowed)) => allowed,
            _ => panic!("{path} does not answer OPTIONS"),
        };
        assert_eq!(allowed("/healthz"), "GET, HEAD, OPTIONS");
        assert_eq!(allowed("/locks/1/WriteKey"), "POST, OPTIONS");
        assert_eq!(allowed("/locks/1/writes/2"), "GET, HEAD, DELETE, OPTIONS");
        assert_eq!(allowed("/webhooks"), "GET, HEAD, POST, OPTIONS");
        assert_eq!(allowed("/webhooks/1"), "GET, HEAD, PATCH, DELETE, OPTIONS");
        assert_eq!(allowed("/webhooks/1/replay"), "POST, OPTIONS");
        assert!(allowed("*").contains("OPTIONS"));
        let unknown = find(&Method::OPTIONS, "/nowhere");
        assert!(matches!(unknown, Err(ApiError::NotFound)));
    }
}
