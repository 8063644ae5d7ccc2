//! How commands that are clients of the API reach a server: its URL and the credentials.

use std::sync::LazyLock;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Uri};
use keywright_client::{Answer, Connection};
use serde_json::Value;

use crate::settings::serve_options::LISTEN;

static SERVER: LazyLock<String> = LazyLock::new(|| format!("http://{LISTEN}"));

#[derive(Args)]
pub(super) struct ServerAccess {
    /// The URL of the server.
    #[arg(
        long,
        value_name = "URL",
        env = "KEYWRIGHT_URL",
        default_value = SERVER.as_str(),
        value_parser = url
    )]
    pub(super) url: Uri,
    #[command(flatten)]
    credential: Credential,
}

#[derive(Args, Clone)]
pub(super) struct Credential {
    /// The token to send.
    #[arg(
        long,
        value_name = "JWT",
        env = "KEYWRIGHT_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// The API key to send.
    #[arg(
        long,
        value_name = "KEY",
        env = "KEYWRIGHT_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

/// White space around the URL is ignored: a variable that a shell reads from a file often ends with a line end.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    text.trim()
        .parse()
        .map_err(|e| format!("{e} (--url or KEYWRIGHT_URL)"))
}

/// The value of a header with this credential after `prefix`. White space around the credential is ignored, and an empty one counts
/// as none.
///
/// # Errors
/// It contains a character that no credential has; the text has its `name` but not the credential.
fn header_value(
    given: Option<&str>,
    prefix: &str,
    name: &str,
) -> anyhow::Result<Option<HeaderValue>> {
    let Some(text) = given.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    ensure!(
        text.bytes().all(|byte| byte.is_ascii_graphic()),
        "{name} contains a space, a line end or another character that no credential has"
    );
    let mut value = HeaderValue::from_str(&format!("{prefix}{text}"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl ServerAccess {
    pub(super) const fn new(url: Uri, credential: Credential) -> Self {
        Self { url, credential }
    }

    /// A request for this path, with the credentials.
    ///
    /// # Errors
    /// There is no valid credential, or the URL cannot be used.
    pub(super) fn request(&self, method: Method, path: &str) -> anyhow::Result<Builder> {
        let name = "the token (--token or KEYWRIGHT_TOKEN)";
        let bearer = header_value(self.credential.token.as_deref(), "Bearer ", name)?;
        let name = "the API key (--api-key or KEYWRIGHT_API_KEY)";
        let api_key = header_value(self.credential.api_key.as_deref(), "", name)?;
        ensure!(
            bearer.is_some() || api_key.is_some(),
            "give --token or --api-key; those of the sandbox are in its sandbox.env: \
             set -a; . keywright-data/sandbox.env; set +a"
        );
        let prefix = self.url.path().trim_end_matches('/');
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(HOST, self.address()?);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(key) = api_key {
            request = request.header("X-API-Key", key);
        }
        Ok(request)
    }

    /// # Errors
    /// The URL cannot be used, or the server cannot be reached.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let connection = Connection::open(self.address()?).await;
        connection.map_err(|e| anyhow!("{e}; is the server running?"))
    }

    fn address(&self) -> anyhow::Result<String> {
        let host = self.url.host().context("the URL has no host")?;
        ensure!(
            self.url.scheme_str() == Some("http"),
            "this command speaks only http://; for https:// use curl"
        );
        Ok(format!("{host}:{}", self.url.port_u16().unwrap_or(80)))
    }
}

/// The server refuses the request. Repeating it does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

/// The JSON body of an answer.
///
/// # Errors
/// The status is no success; the text has the message of the server. [`Refused`]: repeating the request does not help.
pub(super) fn body_of(answer: &Answer) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let status = answer.status();
    if status.is_success() {
        return Ok(body);
    }
    let message = body["message"].as_str();
    let message = message.unwrap_or("the server gave no reason");
    let text = format!("{}: {message}", status.as_u16());
    let may_pass = matches!(status.as_u16(), 408 | 429);
    match status.is_client_error() && !may_pass {
        true => Err(Refused(text).into()),
        false => bail!(text),
    }
}
