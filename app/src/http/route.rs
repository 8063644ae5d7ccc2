//! Which request is meant.

use hyper::Method;

use super::failure::Failure;

/// A request by its method and path. Ids are still as they were sent: they are read once it is known who
/// asks.
pub(super) enum Route<'a> {
    Health,
    Ready,
    OpenApi,
    Docs,
    DocsScript,
    Metrics,
    DeviceReports,
    WriteKey(&'a str),
    Details(&'a str),
    Events(&'a str),
    Writes(&'a str),
    Write(&'a str, &'a str),
    Withdraw(&'a str, &'a str),
}

impl Route<'_> {
    /// What stands for it in metrics: the path, without ids.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::DocsScript => "/docs/scalar.js",
            Self::Metrics => "/metrics",
            Self::DeviceReports => "/device-reports",
            Self::WriteKey(_) => "/locks/{id}/WriteKey",
            Self::Details(_) => "/locks/{id}/details",
            Self::Events(_) => "/locks/{id}/events",
            Self::Writes(_) => "/locks/{id}/writes",
            Self::Write(..) => "/locks/{id}/writes/{writeId}",
            Self::Withdraw(..) => "DELETE /locks/{id}/writes/{writeId}",
        }
    }
}

/// # Errors
/// 404 for a path that is not served, 405 for a method that its path does not have.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, Failure> {
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    let parts = [(); 5].map(|()| parts.next());
    let (route, allowed) = match parts {
        [Some("healthz"), None, ..] => (Route::Health, "GET"),
        [Some("readyz"), None, ..] => (Route::Ready, "GET"),
        [Some("openapi.json"), None, ..] => (Route::OpenApi, "GET"),
        [Some("docs"), None, ..] => (Route::Docs, "GET"),
        [Some("docs"), Some("scalar.js"), None, ..] => (Route::DocsScript, "GET"),
        [Some("metrics"), None, ..] => (Route::Metrics, "GET"),
        [Some("device-reports"), None, ..] => (Route::DeviceReports, "POST"),
        [Some("locks"), Some(lock), Some("WriteKey"), None, _] => (Route::WriteKey(lock), "POST"),
        [Some("locks"), Some(lock), Some("details"), None, _] => (Route::Details(lock), "GET"),
        [Some("locks"), Some(lock), Some("events"), None, _] => (Route::Events(lock), "GET"),
        [Some("locks"), Some(lock), Some("writes"), None, _] => (Route::Writes(lock), "GET"),
        [Some("locks"), Some(lock), Some("writes"), Some(write), None] => match *method {
            Method::DELETE => (Route::Withdraw(lock, write), "DELETE"),
            _ => (Route::Write(lock, write), "GET"),
        },
        _ => return Err(Failure::NotFound),
    };
    // Whoever may GET may ask for the head of the answer alone; the server leaves the body away.
    if method.as_str() == allowed || *method == Method::HEAD && allowed == "GET" {
        return Ok(route);
    }
    Err(Failure::MethodNotAllowed(match route {
        Route::Write(..) => "GET, HEAD, DELETE",
        _ if allowed == "GET" => "GET, HEAD",
        _ => allowed,
    }))
}
