//! `keywright events`: reads the feed of a running server.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use hyper::Method;
use hyper::header::ACCEPT;
use keywright_client::{Answer, EventStream, StreamAnswer};
use keywright_domain::model::{LockEvent, LockId};
use serde_json::Value;

use super::runtime::block_on;
use super::server_access::ServerAccess;

/// The number of events of a page.
const LIMIT: usize = 500;

/// The pause before a stream that has ended is opened again.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct EventsCommand {
    /// Wait for further events. Without --after it begins with the next event.
    #[arg(long)]
    follow: bool,
    /// Only events of this lock.
    #[arg(long, value_name = "ID")]
    lock: Option<LockId>,
    /// Only events of this type.
    #[arg(long = "type", value_name = "NAME", value_parser = PossibleValuesParser::new(LockEvent::NAMES))]
    event_type: Option<String>,
    /// Only events after this cursor; `end`: after the last event [default: all events].
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print each event as a line of JSON, as the server sends it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerAccess,
}

/// # Errors
/// The server cannot be reached or refuses the request. A stream that has begun is opened again.
pub(crate) fn run(command: EventsCommand) -> anyhow::Result<()> {
    match command.follow {
        true => block_on(follow(&command)),
        false => block_on(read_pages(&command)),
    }
}

async fn read_pages(command: &EventsCommand) -> anyhow::Result<()> {
    let mut connection = command.server.connect().await?;
    let mut after = command.after.clone();
    loop {
        let request = command
            .server
            .request(Method::GET, &path(command, after.as_deref()))?;
        let answer = connection.send(request.body(<_>::default())?).await?;
        let page = body_of(&answer)?;
        let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
        for event in events {
            if !print(command, event)? {
                return Ok(());
            }
        }
        let next = page["next"].as_str().map(str::to_owned);
        // A page may have no event and yet not be the last one.
        if next == after || next.is_none() {
            return Ok(());
        }
        after = next;
    }
}

async fn follow(command: &EventsCommand) -> anyhow::Result<()> {
    let mut after = Some(command.after.clone().unwrap_or_else(|| "end".into()));
    let mut stream = open(command, after.as_deref()).await?;
    loop {
        let ended = loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    if !print(command, &serde_json::from_str(&event.data)?)? {
                        return Ok(());
                    }
                }
                Ok(None) => break "the server has ended the stream".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        after = stream.last_id().map(str::to_owned).or(after);
        eprintln!("{ended}; connecting again");
        stream = loop {
            tokio::time::sleep(PAUSE).await;
            match open(command, after.as_deref()).await {
                Ok(stream) => break stream,
                Err(error) if error.is::<Refused>() => return Err(error),
                Err(error) => eprintln!("{error:#}"),
            }
        };
    }
}

async fn open(command: &EventsCommand, after: Option<&str>) -> anyhow::Result<EventStream> {
    let connection = command.server.connect().await?;
    let request = command.server.request(Method::GET, &path(command, after))?;
    let request = request.header(ACCEPT, "text/event-stream");
    match connection.stream(request.body(<_>::default())?).await? {
        StreamAnswer::Stream(stream) => Ok(stream),
        StreamAnswer::Other(answer) => {
            body_of(&answer)?;
            bail!("the server did not answer with a stream of events")
        }
    }
}

/// The server refuses the request. Repeating it does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn body_of(answer: &Answer) -> anyhow::Result<Value> {
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

fn path(command: &EventsCommand, after: Option<&str>) -> String {
    let mut path = format!("/events?limit={LIMIT}");
    let lock = command.lock.map(|lock| lock.to_string());
    for (name, value) in [
        ("after", after),
        ("lock", lock.as_deref()),
        ("type", command.event_type.as_deref()),
    ] {
        if let Some(value) = value {
            path += &format!("&{name}={value}");
        }
    }
    path
}

/// Returns whether anybody reads the output.
fn print(command: &EventsCommand, event: &Value) -> anyhow::Result<bool> {
    let line = match command.json {
        true => event.to_string(),
        false => text(event),
    };
    // Each line at once, also into a pipe.
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// One line: when, which lock and version, what, and who asked for it.
fn text(event: &Value) -> String {
    let member = |name: &str| event[name].as_str().unwrap_or("?").to_owned();
    let (time, lock, name) = (member("timestamp"), member("aggregateId"), member("type"));
    let mut line = format!("{time}  lock {lock}  version {}  {name}", event["version"]);
    let data = &event["event"]["data"];
    for (label, value) in [
        ("key", &data["keyUuid"]),
        ("slot", &data["keyIndexNumber"]),
        ("reason", &data["reason"]),
        ("by", &event["cause"]["requestedBy"]),
        ("request", &event["cause"]["requestId"]),
    ] {
        match value {
            Value::Null => {}
            Value::String(text) => line += &format!("  {label} {text}"),
            other => line += &format!("  {label} {other}"),
        }
    }
    line
}
