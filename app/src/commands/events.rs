//! `keywright events`: reads the feed of a running server.

use clap::Args;
use clap::builder::PossibleValuesParser;
use keywright_domain::model::{LockEvent, LockId};
use serde_json::Value;

use super::api_list::ApiList;
use super::event_follower::EventFollower;
use super::output::print_line;
use super::runtime::block_on;
use super::server_access::ServerAccess;

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
    let events = ApiList::events()
        .filter("lock", command.lock)
        .filter("type", command.event_type.as_ref());
    if command.follow {
        return block_on(follow(&command, events));
    }
    let after = command.after.clone();
    let reading = events.read(&command.server, after, usize::MAX, |event| {
        print(&command, event);
    });
    block_on(reading).map(drop)
}

async fn follow(command: &EventsCommand, events: ApiList) -> anyhow::Result<()> {
    let after = command.after.clone().unwrap_or_else(|| "end".into());
    let mut events = EventFollower::open(&command.server, events, after).await?;
    loop {
        print(command, &events.next().await?);
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
