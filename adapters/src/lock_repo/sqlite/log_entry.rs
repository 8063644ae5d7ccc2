//! The log's entries as JSON: what a save or a claim changes.

use keywright_domain::model::{
    IdempotencyRecord, LockId, LockVersion, RecordedEvent, Revision, Save, ShadowVersion, Write,
    WriteId,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::json::{
    CauseData, EventData, IdempotencyData, InvalidJson, WriteData, read_cause, read_event,
    read_idempotency_record, read_write, text,
};

/// A change of a lock that had `revision`.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) lock: LockId,
    pub(super) revision: Revision,
    pub(super) shadow_version: Option<ShadowVersion>,
    pub(super) events: Vec<RecordedEvent>,
    pub(super) writes: Vec<Write>,
    pub(super) record: Option<Box<IdempotencyRecord>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryJson<'a> {
    lock: u64,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_version: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "events")]
    events: &'a [RecordedEvent],
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "writes")]
    writes: &'a [Write],
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<IdempotencyData<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(rename = "type")]
    event_type: &'static str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<String>,
    data: EventData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<CauseData<'a>>,
}

fn events<S: Serializer>(events: &[RecordedEvent], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(events.iter().map(|event| EventJson {
        event_type: event.event.name(),
        version: event.version.0,
        write: event.write.map(|id| id.to_string()),
        data: EventData(event),
        cause: event.cause.as_ref().map(CauseData),
    }))
}

fn writes<S: Serializer>(writes: &[Write], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(writes.iter().map(WriteData))
}

/// The entry of a save.
pub(super) fn save_text(save: &Save) -> String {
    text(&EntryJson {
        lock: save.lock.get(),
        revision: save.revision.0,
        shadow_version: save.shadow_version.map(|version| version.0),
        events: &save.events,
        writes: &save.writes,
        record: save.idempotency.as_deref().map(IdempotencyData),
    })
}

/// The entry of a claim, which changes one write.
pub(super) fn claim_text(revision: Revision, write: &Write) -> String {
    text(&EntryJson {
        lock: write.lock.get(),
        revision: revision.0,
        shadow_version: None,
        events: &[],
        writes: std::slice::from_ref(write),
        record: None,
    })
}

/// Reads a row of the log: an array of entries.
pub(super) fn read_entries(row: &str) -> Option<Vec<LogEntry>> {
    let entries: Vec<Value> = serde_json::from_str(row).ok()?;
    entries.iter().map(read_entry).collect()
}

fn read_entry(entry: &Value) -> Option<LogEntry> {
    let entry = entry.as_object()?;
    let number = |member: &str| entry.get(member).and_then(Value::as_u64);
    let record = match entry.get("record") {
        Some(record) => Some(Box::new(read_idempotency_record(record).ok()?)),
        None => None,
    };
    Some(LogEntry {
        lock: LockId::new(number("lock")?).ok()?,
        revision: Revision(number("revision")?),
        shadow_version: number("shadowVersion").map(ShadowVersion),
        events: read_list(entry, "events", read_logged_event)?,
        writes: read_list(entry, "writes", |write| read_write(write).ok())?,
        record,
    })
}

fn read_list<T>(
    entry: &Map<String, Value>,
    member: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Option<Vec<T>> {
    match entry.get(member) {
        Some(list) => list.as_array()?.iter().map(read).collect(),
        None => Some(Vec::new()),
    }
}

fn read_logged_event(event: &Value) -> Option<RecordedEvent> {
    let version = LockVersion(event.get("version")?.as_u64()?);
    let write: Option<Result<WriteId, _>> = event.get("write").map(|id| {
        let id = id.as_str().unwrap_or_default();
        id.parse().map_err(InvalidJson::from)
    });
    let (name, data) = (event.get("type")?.as_str()?, event.get("data")?);
    let mut read = read_event(name, version, write.transpose().ok()?, data).ok()?;
    read.cause = match event.get("cause") {
        Some(cause) => Some(read_cause(cause).ok()?),
        None => None,
    };
    Some(read)
}
