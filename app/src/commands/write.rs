//! `keywright write`: a client for people at a terminal.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Uri};
use keywright_client::{Answer, Connection};
use keywright_domain::model::LockId;
use serde_json::{Value, json};

use super::output::print_result;
use super::runtime::block_on;
use crate::settings::serve_options::LISTEN;

/// The longest time that a server waits for the lock, in seconds.
const MAX_WAIT: u64 = 30;

/// How long the server may take in addition.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

static SERVER: LazyLock<String> = LazyLock::new(|| format!("http://{LISTEN}"));

#[derive(Args)]
pub(crate) struct WriteCommand {
    /// The id of the lock.
    lock: LockId,
    /// The UUID of the key.
    key: String,
    /// The key index [default: the lock chooses one].
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    #[arg(long, help = format!("Wait until the lock has confirmed the write, for {MAX_WAIT} s at most"))]
    wait: bool,
    /// The URL of the server.
    #[arg(
        long,
        value_name = "URL",
        env = "KEYWRIGHT_URL",
        default_value = SERVER.as_str(),
        value_parser = url
    )]
    url: Uri,
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
    /// Print the answer of the server as JSON.
    #[arg(long)]
    json: bool,
}

/// White space around the URL is ignored: a variable that a shell reads from a file often ends with a line end.
fn url(text: &str) -> Result<Uri, String> {
    text.trim()
        .parse()
        .map_err(|e| format!("{e} (--url or KEYWRIGHT_URL)"))
}

/// The value of a header with this credential after `prefix`. White space around the credential is ignored, and an empty one counts
/// as none.
///
/// # Errors
/// It contains a character that no credential has; the text has its `name` but not the credential.
fn credential(
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

/// # Errors
/// The server cannot be reached or refuses the write, or, with `--wait`, the lock has not confirmed it.
pub(crate) fn run(command: WriteCommand) -> anyhow::Result<()> {
    let answer = block_on(send(&command))?;
    let status = answer.status();
    let is_accepted = status.is_success();
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let location = answer.headers().get(LOCATION);
    let location = location.and_then(|path| path.to_str().ok());
    if is_accepted || command.json {
        print_result(command.json, &body, || text(&body));
    }
    if let (false, Some(location)) = (command.json, location) {
        eprintln!("its status is at {location}");
    }
    if !is_accepted {
        let message = body["message"].as_str();
        let reason = body["reason"].as_str().map(|reason| format!(" ({reason})"));
        bail!(
            "{}: {}{}",
            status.as_u16(),
            message.unwrap_or("the server gave no reason"),
            reason.unwrap_or_default()
        );
    }
    match body["write"]["state"].as_str() {
        Some("FAILED") => {
            let reason = body["write"]["reason"].as_str().unwrap_or("unknown");
            bail!("the lock did not take the key: {reason}")
        }
        Some(state) if state != "SUCCEEDED" => {
            bail!("the lock has not confirmed it yet: the write is {state}")
        }
        _ => Ok(()),
    }
}

fn text(body: &Value) -> String {
    let (lock, version) = (
        body["aggregateId"].as_str().unwrap_or("?"),
        &body["version"],
    );
    match (body["event"].is_null(), body["write"]["state"].as_str()) {
        (true, None) => format!("lock {lock}: the same write is open already"),
        (false, None) => format!("lock {lock}: requested, version {version}"),
        (_, Some(state)) => format!("lock {lock}: version {version}, the write is {state}"),
    }
}

async fn send(command: &WriteCommand) -> anyhow::Result<Answer> {
    let name = "the token (--token or KEYWRIGHT_TOKEN)";
    let bearer = credential(command.token.as_deref(), "Bearer ", name)?;
    let name = "the API key (--api-key or KEYWRIGHT_API_KEY)";
    let api_key = credential(command.api_key.as_deref(), "", name)?;
    ensure!(
        bearer.is_some() || api_key.is_some(),
        "give --token or --api-key; those of the sandbox are in its sandbox.env: \
         set -a; . keywright-data/sandbox.env; set +a"
    );
    let host = command.url.host().context("the URL has no host")?;
    ensure!(
        command.url.scheme_str() == Some("http"),
        "this command speaks only http://; for https:// use curl"
    );
    let address = format!("{host}:{}", command.url.port_u16().unwrap_or(80));
    let prefix = command.url.path().trim_end_matches('/');
    let mut body = json!({ "keyUuid": command.key });
    if let Some(index) = command.index {
        body["keyIndexNumber"] = json!(index);
    }
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/locks/{}/WriteKey", prefix, command.lock))
        .header(HOST, &address)
        .header(CONTENT_TYPE, "application/json");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    if let Some(key) = api_key {
        request = request.header("X-API-Key", key);
    }
    if command.wait {
        request = request.header("Prefer", format!("wait={MAX_WAIT}"));
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    let answering = async {
        let mut connection = Connection::open(address)
            .await
            .map_err(|e| anyhow!("{e}; is the server running?"))?;
        anyhow::Ok(connection.send(request).await?)
    };
    let timeout = Duration::from_secs(if command.wait { MAX_WAIT } else { 0 }) + ANSWER_TIMEOUT;
    tokio::time::timeout(timeout, answering)
        .await
        .map_err(|_| anyhow!("{} did not answer in time", command.url))?
}
