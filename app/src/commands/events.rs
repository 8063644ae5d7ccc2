//! `keywright events`: reads the feed of a running server.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use hyper::Method;
use hyper::header::ACCEPT;
use keywright_client::{EventStream, StreamAnswer};
use keywright_domain::model::{LockEvent, LockId};
use serde_json::Value;

use super::api_list::{ApiList, Refused, body_of};
use super::output::print_line;
use super::runtime::block_on;
use super::server_access::ServerAccess;

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
    let events = ApiList::new("/events", "events")
        .filter("lock", command.lock)
        .filter("type", command.event_type.as_ref());
    if command.follow {
        return block_on(follow(&command, &events));
    }
    let after = command.after.clone();
    let reading = events.read(&command.server, after, usize::MAX, |event| {
        print(&command, event);
    });
    block_on(reading).map(drop)
}

async fn follow(command: &EventsCommand, events: &ApiList) -> anyhow::Result<()> {
    let mut after = Some(command.after.clone().unwrap_or_else(|| "end".into()));
    let mut stream = open(command, &events.page_path(after.as_deref())).await?;
    loop {
        let ended = loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    print(command, &serde_json::from_str(&event.data)?);
                }
                Ok(None) => break "the server has ended the stream".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        after = stream.last_id().map(str::to_owned).or(after);
        eprintln!("{ended}; connecting again");
        stream = loop {
            tokio::time::sleep(PAUSE).await;
            match open(command, &events.page_path(after.as_deref())).await {
                Ok(stream) => break stream,
                Err(error) if error.is::<Refused>() => return Err(error),
                Err(error) => eprintln!("{error:#}"),
            }
        };
    }
}

async fn open(command: &EventsCommand, path: &str) -> anyhow::Result<EventStream> {
    let connection = command.server.connect().await?;
    let request = command.server.request(Method::GET, path)?;
    let request = request.header(ACCEPT, "text/event-stream");
    match connection.stream(request.body(<_>::default())?).await? {
        StreamAnswer::Stream(stream) => Ok(stream),
        StreamAnswer::Other(answer) => {
            body_of(&answer)?;
            bail!("the server did not answer with a stream of events")
        }
    }
}

fn print(command: &EventsCommand, event: &Value) {
    match command.json {
        true => print_line!("{event}"),
        false => print_line!("{}", text(event)),
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
