//! `keywright events`: reads the feed of a running server.

use std::io::{ErrorKind, Write};

use clap::Args;
use clap::builder::PossibleValuesParser;
use hyper::Method;
use keywright_domain::model::{LockEvent, LockId};
use serde_json::Value;

use super::event_follower::{EventFollower, events_path};
use super::runtime::block_on;
use super::server_access::{ServerAccess, body_of};

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
    /// Only events behind this cursor; `end`: behind the last event [default: all events].
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
        let path = events_path(after.as_deref(), &filters(command));
        let request = command.server.request(Method::GET, &path)?;
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
    let after = command.after.clone().unwrap_or_else(|| "end".into());
    let opening = EventFollower::open(&command.server, filters(command), after);
    let mut events = opening.await?;
    while print(command, &events.next().await?)? {}
    Ok(())
}

/// The parameters that select events.
fn filters(command: &EventsCommand) -> String {
    let lock = command.lock.map(|lock| format!("&lock={lock}"));
    let event_type = command.event_type.as_ref();
    let event_type = event_type.map(|name| format!("&type={name}"));
    lock.unwrap_or_default() + &event_type.unwrap_or_default()
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
