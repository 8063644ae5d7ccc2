//! `keywright listen`: delivers the events of a running server to a program on this machine, as a webhook does.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use keywright_adapters::time::SystemClock;
use keywright_adapters::webhooks::{
    EnvelopeEvent, EnvelopeSettings, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER,
    generate_secret, read_secret, secret_text, sign,
};
use keywright_client::Connection;
use keywright_domain::model::{EventSelection, SigningSecret, WebhookUrl};
use keywright_domain::ports::Clock;
use serde_json::Value;

use super::api_list::ApiList;
use super::event_follower::EventFollower;
use super::output::print_line;
use super::runtime::block_on;
use super::server_access::ServerAccess;

/// How long the program may take to answer, as for a webhook.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct ListenCommand {
    /// Where events are delivered: an http URL on this machine.
    #[arg(long, value_name = "URL", value_parser = url)]
    forward: WebhookUrl,
    /// The types of events, separated by commas [default: all].
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    events: Vec<String>,
    /// The secret that signs deliveries, `whsec_…` [default: a new one, which is printed].
    #[arg(
        long,
        value_name = "SECRET",
        env = "KEYWRIGHT_WEBHOOK_SECRET",
        hide_env_values = true
    )]
    secret: Option<String>,
    /// Begin behind this cursor [default: with the next event].
    #[arg(
        long,
        value_name = "CURSOR",
        default_value = "end",
        hide_default_value = true
    )]
    after: String,
    #[command(flatten)]
    server: ServerAccess,
}

fn url(text: &str) -> Result<WebhookUrl, String> {
    let url = WebhookUrl::new(text).map_err(|e| e.to_string())?;
    match !url.is_https() && url.host().is_loopback() {
        true => Ok(url),
        false => {
            Err("it is an http URL on this machine, such as http://127.0.0.1:3000/hook".into())
        }
    }
}

/// # Errors
/// The options are invalid, or the server cannot be reached or refuses the request. A delivery that fails is printed.
pub(crate) fn run(command: ListenCommand) -> anyhow::Result<()> {
    let secret = match &command.secret {
        Some(text) => read_secret(text.trim()).context("--secret")?,
        None => generate_secret(),
    };
    let names = command.events.iter().map(String::as_str);
    let selection = match command.events.is_empty() {
        true => EventSelection::All,
        false => EventSelection::new(names).context("--events")?,
    };
    if command.secret.is_none() {
        print_line!("the secret is {}", secret_text(&secret));
    }
    block_on(forward(&command, &secret, &selection))
}

async fn forward(
    command: &ListenCommand,
    secret: &SigningSecret,
    selection: &EventSelection,
) -> anyhow::Result<()> {
    let after = command.after.clone();
    let mut events = EventFollower::open(&command.server, ApiList::events(), after).await?;
    loop {
        let event = events.next().await?;
        let name = event["type"].as_str().unwrap_or_default();
        if selection.has(name) {
            let answer = deliver(&command.forward, secret, &event).await;
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            let id = event["id"].as_str().unwrap_or_default();
            print_line!("{id}  {name}  {answer}");
        }
    }
}

/// Delivers an event of the feed once, and returns the status of the answer.
async fn deliver(
    url: &WebhookUrl,
    secret: &SigningSecret,
    event: &Value,
) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = text(&event["id"]);
    let data = &event["event"]["data"];
    let time = text(&event["timestamp"]).parse();
    let envelope = EnvelopeEvent {
        id: &id,
        event_type: &text(&event["type"]),
        time: time.context("the event has no time")?,
        organization: &text(&event["orgId"]),
        lock_uuid: &text(&data["uuid"]),
        version: event["version"].as_u64().unwrap_or_default(),
    };
    let body = EnvelopeSettings::default().event_body(&envelope, data);
    let timestamp = SystemClock.now().as_secs();
    let request = Request::post(url.target())
        .header(HOST, url.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(ID_HEADER, &id)
        .header(TIMESTAMP_HEADER, timestamp)
        .header(SIGNATURE_HEADER, sign([secret], &id, timestamp, &body))
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let address = format!("{}:{}", url.host(), url.port());
        let mut connection = Connection::open(address).await?;
        anyhow::Ok(connection.send(request).await?)
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange).await;
    let answer = answer.map_err(|_| anyhow!("no answer within {TIMEOUT:?}"))??;
    ensure!(!answer.status().is_informational(), "an unexpected answer");
    Ok(answer.status().to_string())
}
