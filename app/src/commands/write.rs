//! `keywright write`: a client, for people at a terminal.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use keywright_domain::model::LockId;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{block_on, print};
use crate::bootstrap::Error;

/// The longest time that a server waits for the lock.
const LONGEST_WAIT: u64 = 30;

/// How long the server may take beyond that.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which key, to which lock, of which server.
#[derive(Args)]
pub(crate) struct WriteCommand {
    /// The lock's number.
    lock: LockId,
    /// The key's UUID.
    key: String,
    /// The slot; without one, the lock chooses.
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// Wait until the lock has confirmed it, 30 s at most.
    #[arg(long)]
    wait: bool,
    /// The server.
    #[arg(
        long,
        value_name = "URL",
        env = "KEYWRIGHT_URL",
        default_value = "http://127.0.0.1:8787",
        value_parser = url
    )]
    url: Uri,
    /// A token.
    #[arg(
        long,
        value_name = "JWT",
        env = "KEYWRIGHT_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// An API key.
    #[arg(
        long,
        value_name = "KEY",
        env = "KEYWRIGHT_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Print the server's answer as it is.
    #[arg(long)]
    json: bool,
}

/// What stands in a file or a variable often ends with a line end.
fn url(text: &str) -> Result<Uri, String> {
    text.trim()
        .parse()
        .map_err(|e| format!("{e} (--url or KEYWRIGHT_URL)"))
}

/// The credentials of a request, as its headers have them.
struct Credentials {
    bearer: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
}

impl Credentials {
    /// # Errors
    /// One holds a character that no credential has; the text names it without its value.
    fn of(command: &WriteCommand) -> Result<Self, String> {
        let text = |given: &Option<String>, names| {
            let given = given.as_deref().map(str::trim);
            // A variable that is set to nothing says nothing.
            let given = given.filter(|text| !text.is_empty());
            let is_sendable = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
            match given {
                Some(text) if !is_sendable(&text) => Err(format!(
                    "{names} holds a space, a line end or another character that no credential has"
                )),
                given => Ok(given.map(str::to_owned)),
            }
        };
        let header = |text: String| {
            let value = HeaderValue::from_str(&text).map_err(|e| e.to_string());
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        let token = text(&command.token, "the token (--token or KEYWRIGHT_TOKEN)")?;
        let bearer = token.map(|token| header(format!("Bearer {token}")));
        let api_key = text(
            &command.api_key,
            "the API key (--api-key or KEYWRIGHT_API_KEY)",
        )?;
        Ok(Self {
            bearer: bearer.transpose()?,
            api_key: api_key.map(header).transpose()?,
        })
    }
}

pub(crate) fn run(command: WriteCommand) -> Result<(), Error> {
    let credentials = Credentials::of(&command)?;
    if credentials.bearer.is_none() && credentials.api_key.is_none() {
        let why =
            "the sandbox's are in its sandbox.env: set -a; . keywright-data/sandbox.env; set +a";
        return Err(format!("say who you are with --token or --api-key; {why}").into());
    }
    let Answer {
        status,
        location,
        body,
    } = block_on(ask(&command, credentials))?;
    let good = status < 300;
    if good || command.json {
        print(command.json, &body, || text(&body));
    }
    if let (false, Some(location)) = (command.json, &location) {
        eprintln!("its status is at {location}");
    }
    match (good, body["write"]["state"].as_str()) {
        (true, Some("FAILED")) => {
            let reason = body["write"]["reason"].as_str().unwrap_or("unknown");
            Err(format!("the lock did not take the key: {reason}").into())
        }
        (true, Some(state)) if state != "SUCCEEDED" => {
            Err(format!("the lock has not confirmed it yet: the write is {state}").into())
        }
        (true, _) => Ok(()),
        (false, _) => {
            let message = body["message"]
                .as_str()
                .unwrap_or("the server gave no reason");
            let reason = body["reason"].as_str().map(|reason| format!(" ({reason})"));
            Err(format!("{status}: {message}{}", reason.unwrap_or_default()).into())
        }
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

struct Answer {
    status: u16,
    /// Where the write's status is read.
    location: Option<String>,
    body: Value,
}

async fn ask(command: &WriteCommand, credentials: Credentials) -> Result<Answer, Error> {
    let host = command.url.host().ok_or("the URL has no host")?;
    if command.url.scheme_str() != Some("http") {
        return Err("only http:// is spoken here; behind TLS, use curl".into());
    }
    let port = command.url.port_u16().unwrap_or(80);
    // A URL has an IPv6 address in brackets, and an address has none.
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let prefix = command.url.path().trim_end_matches('/');
    let mut body = json!({ "keyUuid": command.key });
    if let Some(index) = command.index {
        body["keyIndexNumber"] = json!(index);
    }
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/locks/{}/WriteKey", prefix, command.lock))
        .header(HOST, format!("{host}:{port}"))
        .header(CONTENT_TYPE, "application/json");
    if let Some(bearer) = credentials.bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    if let Some(key) = credentials.api_key {
        request = request.header("X-API-Key", key);
    }
    if command.wait {
        request = request.header("Prefer", format!("wait={LONGEST_WAIT}"));
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    let answering = async {
        let stream = TcpStream::connect((address, port)).await.map_err(|e| {
            format!(
                "nobody answers at {}: {e}; is the server running?",
                command.url
            )
        })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let location = head.headers.get(LOCATION).and_then(|l| l.to_str().ok());
        Ok::<_, Error>(Answer {
            status: head.status.as_u16(),
            location: location.map(str::to_owned),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    };
    let timeout = Duration::from_secs(if command.wait { LONGEST_WAIT } else { 0 }) + PATIENCE;
    tokio::time::timeout(timeout, answering)
        .await
        .map_err(|_| format!("{} did not answer in time", command.url))?
}
