//! Conversions between domain values and PostgreSQL: statement parameters, and reading of columns.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{Backlog, IdempotencyRecord, KeyIndex, RecordedEvent, Save};
use keywright_domain::ports::RepoError;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Json, ToSql};
use uuid::Uuid;

use crate::json;
use crate::lock_repo::row_mapping::{
    HasColumns, StoredWrite, WrongType, cause_column, corrupt, to_optional_sql_integer,
    to_sql_integer,
};

/// Whether a row of [`LOAD`](super::statements::LOAD) has a write. An id of a wrong type counts as one, so that `read_write` reports it as
/// corrupt.
pub(super) fn has_write(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<Uuid>>("id"), Ok(Some(_)) | Err(_))
}

/// Reads the row of [`BACKLOG`](super::statements::BACKLOG). `oldest_intent`: see
/// [`ObservedLeases::oldest`](crate::lock_repo::observed_leases::ObservedLeases::oldest).
pub(super) fn read_backlog(
    row: &Row,
    oldest_intent: Option<Duration>,
) -> Result<Backlog, RepoError> {
    let count = |column: &'static str| {
        let count: Option<i64> = row.try_get(column).ok();
        let count = count.and_then(|count| u64::try_from(count).ok());
        count.ok_or_else(|| corrupt("writes", column, "count of unfinished writes".into()))
    };
    let intents = count("intents")?;
    Ok(Backlog {
        intents,
        oldest_intent: (intents > 0).then(|| oldest_intent.unwrap_or_default()),
        open: count("open")?,
        unconfirmed: count("unconfirmed")?,
    })
}

/// The columns of many events, one vector each, as parameters for `unnest`.
#[derive(Default)]
pub(super) struct EventColumns {
    pub(super) versions: Vec<i64>,
    pub(super) write_ids: Vec<Option<Uuid>>,
    pub(super) types: Vec<&'static str>,
    pub(super) data: Vec<String>,
    pub(super) causes: Vec<Option<String>>,
}

impl EventColumns {
    pub(super) fn push(&mut self, event: &RecordedEvent) -> Result<(), RepoError> {
        self.versions.push(to_sql_integer(event.version.0)?);
        self.write_ids
            .push(event.write.map(|id| Uuid::from_u128(id.as_u128())));
        self.types.push(event.event.name());
        self.data.push(json::text(&json::EventData(event)));
        self.causes.push(cause_column(event));
        Ok(())
    }
}

/// Many saves as parameters of a statement: a vector for each column of locks and events, for `unnest`, and JSON for writes and
/// idempotency records.
pub(super) struct SaveColumns<'a> {
    locks: Vec<i64>,
    revisions: Vec<i64>,
    shadow_versions: Vec<Option<i64>>,
    states: Vec<Option<String>>,
    event_locks: Vec<i64>,
    events: EventColumns,
    writes: Json<Vec<StoredWrite<'a>>>,
    records: Json<Vec<StoredIdempotencyRecord<'a>>>,
}

impl<'a> SaveColumns<'a> {
    pub(super) fn of(saves: &'a [Arc<Save>]) -> Result<Self, RepoError> {
        let writes = saves.iter().flat_map(|s| &s.writes).map(StoredWrite::of);
        let records = saves.iter().flat_map(|s| &s.idempotency);
        let records = records.map(|record| StoredIdempotencyRecord::of(record));
        let mut columns = Self {
            locks: Vec::with_capacity(saves.len()),
            revisions: Vec::with_capacity(saves.len()),
            shadow_versions: Vec::with_capacity(saves.len()),
            states: Vec::with_capacity(saves.len()),
            event_locks: Vec::new(),
            events: EventColumns::default(),
            writes: Json(writes.collect::<Result<_, _>>()?),
            records: Json(records.collect::<Result<_, _>>()?),
        };
        for save in saves {
            // The statement finds the save of an event, write or record by its lock, so each must belong to the save's lock.
            debug_assert!(save.events.iter().all(|event| event.lock == save.lock));
            debug_assert!(save.writes.iter().all(|write| write.lock == save.lock));
            let mut records = save.idempotency.iter();
            debug_assert!(records.all(|record| record.scope.lock == save.lock));
            columns.locks.push(to_sql_integer(save.lock.get())?);
            columns.revisions.push(to_sql_integer(save.revision.0)?);
            let shadow_version = to_optional_sql_integer(save.shadow_version.map(|v| v.0))?;
            columns.shadow_versions.push(shadow_version);
            let state = save.folded.as_deref();
            let state = state.map(|lock| json::text(&json::LockState(lock)));
            columns.states.push(state);
            for event in &save.events {
                columns.event_locks.push(to_sql_integer(event.lock.get())?);
                columns.events.push(event)?;
            }
        }
        Ok(columns)
    }

    /// The parameters of [`SAVE`](super::statements::SAVE) and [`SAVE_BATCH`](super::statements::SAVE_BATCH).
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.locks,
            &self.revisions,
            &self.shadow_versions,
            &self.states,
            &self.event_locks,
            &self.events.versions,
            &self.events.write_ids,
            &self.events.types,
            &self.events.data,
            &self.events.causes,
            &self.writes,
            &self.records,
        ]
    }
}

/// An idempotency record as a row of `kept_answers`. The fields have the names of the columns.
#[derive(Debug, Serialize)]
struct StoredIdempotencyRecord<'a> {
    lock: i64,
    principal: &'a str,
    idempotency_key: &'a str,
    key_uuid: &'a str,
    key_index: Option<i64>,
    write_id: Uuid,
    without_event: Option<i64>,
    answered_by: i64,
    until: i64,
}

impl<'a> StoredIdempotencyRecord<'a> {
    fn of(record: &'a IdempotencyRecord) -> Result<Self, RepoError> {
        Ok(Self {
            lock: to_sql_integer(record.scope.lock.get())?,
            principal: &record.scope.principal,
            idempotency_key: record.scope.key.as_str(),
            key_uuid: record.slot.key.as_str(),
            key_index: to_optional_sql_integer(record.slot.index.map(KeyIndex::get))?,
            write_id: Uuid::from_u128(record.write.as_u128()),
            without_event: to_optional_sql_integer(record.version_without_event.map(|v| v.0))?,
            answered_by: to_sql_integer(record.answer_deadline.as_millis())?,
            until: to_sql_integer(record.expires_at.as_millis())?,
        })
    }
}

impl<T: for<'a> FromSql<'a>> HasColumns<T> for Row {
    fn column(&self, name: &'static str) -> Result<T, WrongType> {
        self.try_get(name).map_err(|_| WrongType)
    }
}
