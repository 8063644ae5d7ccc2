//! The interactive reference: a page that renders the OpenAPI document and loads nothing from other servers.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    HeaderMap, HeaderName, HeaderValue, VARY,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::api_error::ApiError;
use super::openapi;
use super::response::{self, HttpResponse};
use crate::app::App;

const SCRIPT: &str = "/docs/scalar.js";

/// The page loads everything from this server. Its requests go to the server that the reader chooses.
const POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
    connect-src 'self' http: https:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'";

/// The languages of the request examples: curl, Python, JavaScript, Go and Ruby.
const SHOWN_LANGUAGES: [&str; 5] = ["shell", "python", "js", "go", "ruby"];

/// All languages that the page supports. It has an option to hide languages, and none to choose them.
const ALL_LANGUAGES: [&str; 23] = [
    "c",
    "clojure",
    "csharp",
    "dart",
    "fsharp",
    "go",
    "http",
    "java",
    "js",
    "kotlin",
    "node",
    "objc",
    "ocaml",
    "php",
    "powershell",
    "python",
    "r",
    "ruby",
    "rust",
    "shell",
    "swift",
    "laravel",
    "julia",
];

/// `GET /openapi.json`.
pub(super) fn openapi(app: &App, headers: &HeaderMap) -> HttpResponse {
    // The header has been checked. An HTTP/1.0 request may have none.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    response::ok(&openapi::document(
        host.unwrap_or("127.0.0.1:8787"),
        &app.client_limits,
        app.device_reports.is_some(),
    ))
}

/// `GET /docs`.
pub(super) fn page() -> HttpResponse {
    let hidden = { ALL_LANGUAGES.iter() }.filter(|l| !SHOWN_LANGUAGES.contains(l));
    let hidden: Vec<_> = hidden.collect();
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
    let mut page = Response::new(Full::new(Bytes::from(html)));
    set_header(&mut page, CONTENT_TYPE, "text/html; charset=utf-8");
    set_header(&mut page, CONTENT_SECURITY_POLICY, POLICY);
    page
}

/// `GET /docs/scalar.js`, compressed if the client accepts gzip: the script has 5 MB.
pub(super) async fn script(headers: &HeaderMap) -> Result<HttpResponse, ApiError> {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|a| a.to_str().ok());
    let accepts_gzip = accepted.unwrap_or_default().split(',').any(|coding| {
        let coding = coding.trim();
        coding == "gzip" || coding.starts_with("gzip;") && !coding.ends_with("q=0")
    });
    let scripts = spawn_blocking(Scripts::get).await;
    let scripts = scripts.ok().flatten().ok_or(ApiError::Internal)?;
    let body = match accepts_gzip {
        true => &scripts.gzipped,
        false => &scripts.plain,
    };
    let mut script = Response::new(Full::new(body.clone()));
    set_header(&mut script, CONTENT_TYPE, "text/javascript; charset=utf-8");
    set_header(&mut script, CACHE_CONTROL, "public, max-age=3600");
    set_header(&mut script, VARY, "Accept-Encoding");
    if accepts_gzip {
        set_header(&mut script, CONTENT_ENCODING, "gzip");
    }
    Ok(script)
}

fn set_header(response: &mut HttpResponse, name: HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}

/// The page's script, compressed at the first request.
struct Scripts {
    plain: Bytes,
    gzipped: Bytes,
}

impl Scripts {
    fn get() -> Option<Arc<Self>> {
        static SCRIPTS: OnceLock<Option<Arc<Scripts>>> = OnceLock::new();
        SCRIPTS.get_or_init(Self::load).clone()
    }

    fn load() -> Option<Arc<Self>> {
        let plain = scalar_api_reference::get_asset("scalar.js")?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).ok()?;
        Some(Arc::new(Self {
            gzipped: encoder.finish().ok()?.into(),
            plain: plain.into(),
        }))
    }
}
