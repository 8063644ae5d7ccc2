//! `keywright write`: a client for people at a terminal.

use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, LOCATION};
use keywright_client::Answer;
use keywright_domain::model::LockId;
use serde_json::{Value, json};

use super::output::print_result;
use super::runtime::block_on;
use super::server_access::ServerAccess;

/// The longest time that a server waits for the lock, in seconds.
const MAX_WAIT: u64 = 30;

/// How long the server may take in addition.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

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
    #[command(flatten)]
    server: ServerAccess,
    /// Print the answer of the server as JSON.
    #[arg(long)]
    json: bool,
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
    let path = format!("/locks/{}/WriteKey", command.lock);
    let request = command.server.request(Method::POST, &path)?;
    let mut request = request.header(CONTENT_TYPE, "application/json");
    if command.wait {
        request = request.header("Prefer", format!("wait={MAX_WAIT}"));
    }
    let mut body = json!({ "keyUuid": command.key });
    if let Some(index) = command.index {
        body["keyIndexNumber"] = json!(index);
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    let answering = async {
        let mut connection = command.server.connect().await?;
        anyhow::Ok(connection.send(request).await?)
    };
    let timeout = Duration::from_secs(if command.wait { MAX_WAIT } else { 0 }) + ANSWER_TIMEOUT;
    tokio::time::timeout(timeout, answering)
        .await
        .map_err(|_| anyhow!("{} did not answer in time", command.server.url))?
}
