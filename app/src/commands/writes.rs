//! `keywright writes`: lists writes of a running server.

use clap::Args;
use clap::builder::PossibleValuesParser;
use keywright_domain::model::{
    FailureReason, KeyUuid, LockId, OrganizationId, Timestamp, WriteState,
};
use serde_json::Value;

use super::api_list::ApiList;
use super::output::print_line;
use super::runtime::block_on;
use super::server_access::ServerAccess;

#[derive(Args)]
pub(crate) struct WritesCommand {
    /// Only writes in this state.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(WriteState::NAMES))]
    state: Option<String>,
    /// Only writes that the shadow has accepted and on which the lock has not reported for an unusually long time.
    #[arg(long)]
    unconfirmed: bool,
    /// Only writes that failed or were aborted for this reason.
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(FailureReason::names()))]
    reason: Option<String>,
    /// Only writes of this lock.
    #[arg(long, value_name = "ID")]
    lock: Option<LockId>,
    /// Only writes of this key.
    #[arg(long, value_name = "KEY")]
    key: Option<KeyUuid>,
    /// Only writes of locks that belong to this organization.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// Only writes that this principal requested, such as `user:eve` or `org:acme`.
    #[arg(long, value_name = "PRINCIPAL")]
    requested_by: Option<String>,
    /// Only writes that were requested then or later, such as 2026-05-29T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only writes after this cursor, which are older.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// The highest number of writes to list.
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
    /// Print each write as a line of JSON, as the server sends it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerAccess,
}

/// # Errors
/// The server cannot be reached or refuses the request.
pub(crate) fn run(command: WritesCommand) -> anyhow::Result<()> {
    let list = ApiList::new("/writes", "writes")
        .filter("state", command.state)
        .filter("unconfirmed", command.unconfirmed.then_some(true))
        .filter("reason", command.reason)
        .filter("lock", command.lock)
        .filter("key", command.key)
        .filter("organization", command.organization)
        .filter("requestedBy", command.requested_by)
        .filter("since", command.since);
    if !command.json {
        let columns = [
            "REQUESTED",
            "LOCK",
            "SLOT",
            "STATE",
            "KEY",
            "REQUESTED BY",
            "WRITE",
        ];
        print_row(columns);
    }
    let reading = list.read(
        &command.server,
        command.after,
        command.limit,
        |write| match command.json {
            true => print_line!("{write}"),
            false => print_write(write),
        },
    );
    let more = block_on(reading)?;
    if let (Some(after), false) = (more, command.json) {
        eprintln!("there may be more: --after {after}");
    }
    Ok(())
}

fn print_write(write: &Value) {
    let text = |name: &str| match &write[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut state = text("state");
    for detail in [&write["reason"], &write["code"]] {
        if let Some(detail) = detail.as_str() {
            state += &format!(" {detail}");
        }
    }
    for mark in ["unconfirmed", "late"] {
        if write[mark] == true {
            state += &format!(" {mark}");
        }
    }
    let (lock, slot) = (text("lockId"), text("keyIndexNumber"));
    let (requested, by) = (text("requestedAt"), text("requestedBy"));
    let (key, id) = (text("keyUuid"), text("id"));
    print_row([&requested, &lock, &slot, &state, &key, &by, &id]);
}

fn print_row([requested, lock, slot, state, key, by, id]: [&str; 7]) {
    print_line!("{requested:24}  {lock:>16}  {slot:>4}  {state:24}  {key:36}  {by:24}  {id}");
}
