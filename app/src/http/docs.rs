//! The interactive reference: a page that renders the OpenAPI document and loads nothing from other servers.

use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    HeaderMap, HeaderValue, VARY,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::api_error::ApiError;
use super::openapi::{self, OptionalRoutes};
use super::response::{self, HttpResponse};
use crate::app::App;
use crate::settings::serve_options::LISTEN;

const SCRIPT: &str = "/docs/scalar.js";

/// The page loads everything from this server. Its requests go to the server that the reader chooses.
const POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
    connect-src 'self' http: https:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'";

/// The languages that the page supports, without those of the request examples: curl, Python, JavaScript, Go and Ruby. The page
/// has an option to hide languages, and none to choose them.
const HIDDEN_LANGUAGES: &str = "c clojure csharp dart fsharp http java kotlin node objc ocaml php \
    powershell r rust swift laravel julia";

/// `GET /openapi.json`.
pub(super) fn openapi(app: &App, headers: &HeaderMap) -> HttpResponse {
    // The header has been checked. An HTTP/1.0 request may have none.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    response::ok(&openapi::document(
        host.unwrap_or(LISTEN),
        &app.http_limits,
        OptionalRoutes {
            device_reports: app.device_reports.is_some(),
            webhooks: app.webhooks.is_some(),
        },
    ))
}

/// `GET /docs`.
pub(super) fn page() -> HttpResponse {
    let hidden: Vec<_> = HIDDEN_LANGUAGES.split(' ').collect();
    let config = json!({
        "url": "/openapi.json", "withDefaultFonts": false, "telemetry": false,
        "showDeveloperTools": "never", "hideClientButton": true,
        "agent": { "disabled": true }, "mcp": { "disabled": true },
        "hiddenClients": hidden, "defaultHttpClient": { "targetKey": "shell", "clientKey": "curl" },
        "authentication": { "preferredSecurityScheme": "BearerAuth" },
        "metaData": { "title": "Keywright" },
    });
    // An empty icon keeps browsers from requesting one.
    let html = scalar_api_reference::scalar_html(&config, Some(SCRIPT))
        .replace("Scalar API Reference", "Keywright")
        .replace("</head>", "<link rel=\"icon\" href=\"data:,\" /></head>");
    let content_type = (CONTENT_TYPE, "text/html; charset=utf-8");
    let headers = [content_type, (CONTENT_SECURITY_POLICY, POLICY)];
    response::new(StatusCode::OK, html, headers)
}

/// `GET /docs/scalar.js`, compressed if the client accepts gzip: the script has 5 MB.
pub(super) async fn script(headers: &HeaderMap) -> Result<HttpResponse, ApiError> {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|a| a.to_str().ok());
    let accepts_gzip = accepted.unwrap_or_default().split(',').any(|coding| {
        let coding = coding.trim();
        coding == "gzip" || coding.starts_with("gzip;") && !coding.ends_with("q=0")
    });
    let scripts = spawn_blocking(|| SCRIPTS.as_ref()).await;
    let [plain, gzipped] = scripts.ok().flatten().ok_or(ApiError::Internal)?;
    let body = if accepts_gzip { gzipped } else { plain };
    let headers = [
        (CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=3600"),
        (VARY, "Accept-Encoding"),
    ];
    let mut script = response::new(StatusCode::OK, body.clone(), headers);
    if accepts_gzip {
        let gzip = HeaderValue::from_static("gzip");
        script.headers_mut().insert(CONTENT_ENCODING, gzip);
    }
    Ok(script)
}

/// The page's script, as it is and compressed by gzip. It is compressed at the first request.
static SCRIPTS: LazyLock<Option<[Bytes; 2]>> = LazyLock::new(|| {
    let plain = scalar_api_reference::get_asset("scalar.js")?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).ok()?;
    Some([plain.into(), encoder.finish().ok()?.into()])
});
