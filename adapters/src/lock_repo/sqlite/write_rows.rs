//! Rows of writes.

use std::ops::RangeInclusive;
use std::time::Duration;

use keywright_domain::model::{Backlog, DueCursor, Intent, Timestamp, Write, WriteId};
use keywright_domain::ports::RepoError;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, named_params, params};
use uuid::Uuid;

use super::statement::{all, execute};
use crate::lock_repo::observed_leases::MAX_OBSERVED;
use crate::lock_repo::row_mapping::{
    self, HasColumns, StoredWrite, WRITE_COLUMNS, WrongType, row_limit, to_optional_sql_integer,
    to_sql_integer,
};

/// A row with all columns of `writes`. SQLite's own lookup by name takes longer than reading all columns.
struct WriteRow<'a>(&'a Row<'a>);

impl<T: FromSql> HasColumns<T> for WriteRow<'_> {
    fn column(&self, name: &'static str) -> Result<T, WrongType> {
        let index = WRITE_COLUMNS.iter().position(|known| *known == name);
        let value = self.0.get(index.ok_or(WrongType)?);
        value.map_err(|_| WrongType)
    }
}

pub(super) fn write(conn: &Connection, id: WriteId) -> Result<Option<Write>, RepoError> {
    let found = all(
        conn,
        "SELECT * FROM writes WHERE id = :id",
        named_params! { ":id": Uuid::from_u128(id.as_u128()) },
        |row| row_mapping::read_write(&WriteRow(row)),
    );
    found.map(|mut found| found.pop())
}

/// A page of all writes, in descending order of their ids.
pub(super) fn writes(
    conn: &Connection,
    before: Option<WriteId>,
    limit: usize,
) -> Result<Vec<Write>, RepoError> {
    let before = before.map(|id| Uuid::from_u128(id.as_u128()));
    // Two statements: with a condition that allows NULL, SQLite would read all writes.
    let sql = match before {
        Some(_) => "SELECT * FROM writes WHERE id < :before ORDER BY id DESC LIMIT :limit",
        None => "SELECT * FROM writes WHERE :before IS NULL ORDER BY id DESC LIMIT :limit",
    };
    all(
        conn,
        sql,
        named_params! { ":before": before, ":limit": row_limit(limit) },
        |row| row_mapping::read_write(&WriteRow(row)),
    )
}

pub(super) fn due(
    conn: &Connection,
    until: Timestamp,
    after: Option<DueCursor>,
    limit: usize,
) -> Result<Vec<Write>, RepoError> {
    let (after, id) = match after {
        Some(due) => (to_sql_integer(due.at.as_millis())?, due.id.as_u128()),
        None => (-1, 0),
    };
    all(
        conn,
        "SELECT * FROM writes WHERE attention <= :until AND (attention, id) > (:after, :id)
         ORDER BY attention, id LIMIT :limit",
        named_params! {
            ":until": to_sql_integer(until.as_millis())?,
            ":after": after,
            ":id": Uuid::from_u128(id),
            ":limit": row_limit(limit),
        },
        |row| row_mapping::read_write(&WriteRow(row)),
    )
}

/// The open intents, those with the fewest take-overs first.
pub(super) fn open_intents(conn: &Connection) -> Result<Vec<(WriteId, Intent)>, RepoError> {
    all(
        conn,
        "SELECT id, owner, epoch, lease FROM writes WHERE lease_until IS NOT NULL ORDER BY lease_until, id LIMIT :limit",
        named_params! { ":limit": MAX_OBSERVED },
        |row| row_mapping::read_open_intent(row),
    )
}

/// Inserts or replaces a write. `lease_until` marks it as prepared and orders the open intents; it is not compared with any
/// clock. It grows with each take-over, so that an intent which cannot be resolved is ordered after the others.
pub(super) fn put_write(conn: &Connection, write: &Write) -> Result<(), RepoError> {
    let columns = StoredWrite::of(write)?;
    let lease_until = write.intent().map(|intent| {
        let epochs = u32::try_from(intent.epoch.0).unwrap_or(u32::MAX);
        let leases = intent.lease.saturating_mul(epochs);
        write.prepared_at.after(leases).as_millis()
    });
    // The columns that identify a write never change.
    let sql = "INSERT INTO writes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
         ?19, ?20, ?21, ?22, ?23, ?24, ?25)
         ON CONFLICT (id) DO UPDATE SET requested_version = ?11, requested_at = ?12, state = ?13, ended_at = ?14,
         late = ?15, reason = ?16, device_code = ?17, owner = ?18, epoch = ?19, lease = ?20, lease_until = ?21,
         attention = ?22, anomalies = ?23, reported_index = ?24";
    let columns = params![
        columns.id,
        columns.lock,
        columns.uuid,
        columns.thing,
        columns.key_uuid,
        columns.key_index,
        columns.seq,
        columns.requested_by,
        columns.prepared_at,
        columns.expires_at,
        columns.requested_version,
        columns.requested_at,
        columns.state,
        columns.ended_at,
        columns.late,
        columns.reason,
        columns.device_code,
        columns.owner,
        columns.epoch,
        columns.lease,
        to_optional_sql_integer(lease_until)?,
        columns.attention,
        columns.anomalies,
        columns.reported_index,
        columns.request_id,
    ];
    execute(conn, sql, columns).map(drop)
}

pub(super) fn backlog(
    conn: &Connection,
    recent_times: RangeInclusive<Timestamp>,
    oldest: Option<Duration>,
) -> Result<Backlog, RepoError> {
    let found = all(
        conn,
        row_mapping::BACKLOG,
        named_params! {
            ":earliest": to_sql_integer(recent_times.start().as_millis())?,
            ":latest": to_sql_integer(recent_times.end().as_millis())?,
        },
        |row| row_mapping::read_backlog(row, oldest),
    );
    found.map(|mut found| found.pop().unwrap_or_default())
}
