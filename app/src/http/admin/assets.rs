//! The style sheet and the script of the page.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};

use crate::http::response::{self, HttpResponse};

const STYLE: &str = include_str!("admin.css");
const SCRIPT: &str = include_str!("admin.js");

/// The asset at this path.
pub(super) fn find(path: &str) -> Option<HttpResponse> {
    let (content, content_type) = match path {
        "/admin/admin.css" => (STYLE, "text/css; charset=utf-8"),
        "/admin/admin.js" => (SCRIPT, "text/javascript; charset=utf-8"),
        _ => return None,
    };
    let headers: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Some(response::new(StatusCode::OK, content, headers))
}
