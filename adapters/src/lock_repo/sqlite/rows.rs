//! The statements, and what they bind and read.

use std::ops::RangeInclusive;
use std::time::Duration;

use keywright_domain::model::{
    Backlog, IdempotencyRecord, IdempotencyScope, KeyIndex, Lock, LockId, LockVersion,
    RecordedEvent, Revision, ShadowVersion, Timestamp, Write, WriteId,
};
use keywright_domain::ports::RepoError;
use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, named_params, params};

use super::live_ids::LiveIds;
use crate::json;
use crate::lock_repo::columns::{self, Bits, LockRow, WriteColumns, WrongType, integer, optional};
use crate::lock_repo::leases::{MAX_WATCHED, OpenIntent};

/// The columns of a write, in their order. To look for each by its name in SQLite's own list takes longer than to read
/// them all.
const WRITE_COLUMNS: [&str; 24] = [
    "id",
    "lock",
    "uuid",
    "thing",
    "key_uuid",
    "key_index",
    "seq",
    "requested_by",
    "prepared_at",
    "expires_at",
    "requested_version",
    "requested_at",
    "state",
    "ended_at",
    "late",
    "reason",
    "device_code",
    "owner",
    "epoch",
    "lease",
    "lease_until",
    "attention",
    "anomalies",
    "reported_index",
];

/// A row with all columns of a write.
struct WriteRow<'a>(&'a Row<'a>);

impl WriteRow<'_> {
    fn get<T: FromSql>(&self, column: &'static str) -> Result<T, WrongType> {
        let place = WRITE_COLUMNS.iter().position(|known| *known == column);
        let value = self.0.get(place.ok_or(WrongType)?);
        value.map_err(|_| WrongType)
    }
}

impl columns::Row for WriteRow<'_> {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, WrongType> {
        self.get(column)
    }

    fn text(&self, column: &'static str) -> Result<Option<String>, WrongType> {
        self.get(column)
    }

    fn bits(&self, column: &'static str) -> Result<Option<u128>, WrongType> {
        let bytes: Option<[u8; 16]> = self.get(column)?;
        Ok(bytes.map(u128::from_be_bytes))
    }

    fn flag(&self, column: &'static str) -> Result<bool, WrongType> {
        self.get(column)
    }
}

impl columns::Row for Row<'_> {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, WrongType> {
        get(self, column)
    }

    fn text(&self, column: &'static str) -> Result<Option<String>, WrongType> {
        get(self, column)
    }

    fn bits(&self, column: &'static str) -> Result<Option<u128>, WrongType> {
        let bytes: Option<[u8; 16]> = get(self, column)?;
        Ok(bytes.map(u128::from_be_bytes))
    }

    fn flag(&self, column: &'static str) -> Result<bool, WrongType> {
        get(self, column)
    }
}

fn get<T: FromSql>(row: &Row<'_>, column: &'static str) -> Result<T, WrongType> {
    row.get(column).map_err(|_| WrongType)
}

impl Bits {
    const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

pub(super) fn unavailable(error: rusqlite::Error) -> RepoError {
    RepoError::Unavailable(error.to_string())
}

/// The transaction is over.
pub(super) fn ended() -> RepoError {
    RepoError::Unavailable("another reading has failed".into())
}

fn prepare<'a>(conn: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, RepoError> {
    conn.prepare_cached(sql).map_err(unavailable)
}

/// Every row of a query, read by `read`; the first that cannot be read is the error.
fn all<T>(
    conn: &Connection,
    sql: &str,
    params: &[(&str, &dyn ToSql)],
    read: impl Fn(&Row<'_>) -> Result<T, RepoError>,
) -> Result<Vec<T>, RepoError> {
    let mut statement = prepare(conn, sql)?;
    let rows = statement
        .query_map(params, |row| Ok(read(row)))
        .map_err(unavailable)?;
    rows.map(|row| row.map_err(unavailable)?).collect()
}

/// A lock's row, and its live writes.
pub(super) fn lock(conn: &Connection, id: LockId) -> Result<Option<(LockRow, LiveIds)>, RepoError> {
    let mut statement = prepare(
        conn,
        "SELECT saves AS revision, shadow_version, state, live FROM locks WHERE id = ?1",
    )?;
    let row = statement
        .query_row([integer(id.get())?], |row| {
            let read = LockRow::read(id, row, "state");
            Ok(read.and_then(|lock| Ok((lock, live(id, row, 3)?))))
        })
        .optional();
    row.map_err(unavailable)?.transpose()
}

/// The live writes of a lock that is at this revision.
pub(super) fn live_at(
    conn: &Connection,
    id: LockId,
    revision: Revision,
) -> Result<Option<LiveIds>, RepoError> {
    let mut statement = prepare(conn, "SELECT live FROM locks WHERE id = ?1 AND saves = ?2")?;
    let row = statement
        .query_row([integer(id.get())?, integer(revision.0)?], |row| {
            Ok(live(id, row, 0))
        })
        .optional();
    row.map_err(unavailable)?.transpose()
}

fn live(id: LockId, row: &Row<'_>, place: usize) -> Result<LiveIds, RepoError> {
    let bytes = row.get(place).ok().and_then(LiveIds::new);
    bytes.ok_or_else(|| corrupt_live(id))
}

pub(super) fn corrupt_live(id: LockId) -> RepoError {
    columns::corrupt("locks", "live", id.to_string())
}

/// Locks by their ids.
pub(super) fn locks(
    conn: &Connection,
    after: Option<LockId>,
    limit: usize,
) -> Result<Vec<Lock>, RepoError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or(Ok(0), |id| integer(id.get()))?;
    all(
        conn,
        "SELECT id, saves AS revision, shadow_version, state FROM locks WHERE id > :after ORDER BY id LIMIT :limit",
        named_params! { ":after": after, ":limit": limit },
        |row| {
            let id = columns::read_lock_id(row)?;
            LockRow::read(id, row, "state").map(|row| row.lock)
        },
    )
}

/// Puts a lock's row in its place.
pub(super) fn put_lock(conn: &Connection, row: &LockRow) -> Result<(), RepoError> {
    let state = json::text(&json::LockState(&row.lock));
    let shadow_version = optional(row.shadow_version.map(|v| v.0))?;
    prepare(
        conn,
        "INSERT INTO locks (id, saves, shadow_version, state) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET saves = ?2, shadow_version = ?3, state = ?4",
    )?
    .execute(params![
        integer(row.lock.id.get())?,
        integer(row.revision.0)?,
        shadow_version,
        state
    ])
    .map(drop)
    .map_err(unavailable)
}

/// Moves a lock's row on; what is not given stays as it is.
pub(super) fn move_lock(
    conn: &Connection,
    lock: LockId,
    folded: Option<&Lock>,
    shadow_version: Option<ShadowVersion>,
    live: Option<&LiveIds>,
) -> Result<(), RepoError> {
    prepare(
        conn,
        "UPDATE locks SET saves = saves + 1, shadow_version = coalesce(?2, shadow_version),
         state = coalesce(?3, state), live = coalesce(?4, live) WHERE id = ?1",
    )?
    .execute(params![
        integer(lock.get())?,
        optional(shadow_version.map(|v| v.0))?,
        folded.map(|lock| json::text(&json::LockState(lock))),
        live.map(LiveIds::bytes),
    ])
    .map(drop)
    .map_err(unavailable)
}

pub(super) fn append(conn: &Connection, event: &RecordedEvent) -> Result<(), RepoError> {
    prepare(conn, "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            integer(event.lock.get())?,
            integer(event.version.0)?,
            event.write.map(|id| id.as_u128().to_be_bytes()),
            event.event.name(),
            json::text(&json::EventData(event))
        ])
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn events(
    conn: &Connection,
    lock: LockId,
    first: LockVersion,
    limit: usize,
) -> Result<Vec<RecordedEvent>, RepoError> {
    let Ok(first) = i64::try_from(first.0) else {
        // No stream is that long.
        return Ok(Vec::new());
    };
    let lock_id = integer(lock.get())?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(
        conn,
        "SELECT version, write_id, type, data FROM events
         WHERE lock = :lock AND version >= :first ORDER BY version LIMIT :limit",
        named_params! { ":lock": lock_id, ":first": first, ":limit": limit },
        |row| columns::read_event(lock, row),
    )
}

pub(super) fn write(conn: &Connection, id: WriteId) -> Result<Option<Write>, RepoError> {
    let id = id.as_u128().to_be_bytes();
    let found = all(
        conn,
        "SELECT * FROM writes WHERE id = :id",
        named_params! { ":id": id },
        |row| columns::read_write(&WriteRow(row)),
    );
    found.map(|mut found| found.pop())
}

pub(super) fn due_writes(
    conn: &Connection,
    until: Timestamp,
    (after, after_id): (Option<Timestamp>, WriteId),
    limit: usize,
) -> Result<Vec<Write>, RepoError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or(Ok(-1), |at| integer(at.as_millis()))?;
    all(
        conn,
        "SELECT * FROM writes WHERE attention <= :until AND (attention, id) > (:after, :id)
         ORDER BY attention, id LIMIT :limit",
        named_params! {
            ":until": integer(until.as_millis())?,
            ":after": after,
            ":id": after_id.as_u128().to_be_bytes(),
            ":limit": limit,
        },
        |row| columns::read_write(&WriteRow(row)),
    )
}

/// The prepared writes, those that were taken over most rarely first.
pub(super) fn open_intents(conn: &Connection) -> Result<Vec<OpenIntent>, RepoError> {
    all(
        conn,
        "SELECT id, owner, epoch, lease FROM writes WHERE lease_until IS NOT NULL ORDER BY lease_until, id LIMIT :limit",
        named_params! { ":limit": MAX_WATCHED },
        |row| columns::read_open_intent(row),
    )
}

/// Puts a write's row in its place. `lease_until` says that it is prepared, and orders intents: no clock is compared with
/// it. It grows with each take-over, so that an intent which cannot be brought to its end stands behind the others.
pub(super) fn put_write(conn: &Connection, write: &Write) -> Result<(), RepoError> {
    let columns = WriteColumns::of(write)?;
    let lease_until = write.intent().map(|intent| {
        let epochs = u32::try_from(intent.epoch.0).unwrap_or(u32::MAX);
        let leases = intent.lease.saturating_mul(epochs);
        write.prepared_at.after(leases).as_millis()
    });
    prepare(
        conn,
        // What a write is of never changes, so that what is found by it stays where it is.
        "INSERT INTO writes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
         ?19, ?20, ?21, ?22, ?23, ?24)
         ON CONFLICT (id) DO UPDATE SET requested_version = ?11, requested_at = ?12, state = ?13, ended_at = ?14,
         late = ?15, reason = ?16, device_code = ?17, owner = ?18, epoch = ?19, lease = ?20, lease_until = ?21,
         attention = ?22, anomalies = ?23, reported_index = ?24",
    )?
    .execute(params![
        columns.id.bytes(),
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
        columns.owner.map(Bits::bytes),
        columns.epoch,
        columns.lease,
        optional(lease_until)?,
        columns.attention,
        columns.anomalies,
        columns.reported_index,
    ])
    .map(drop)
    .map_err(unavailable)
}

/// Stores a record in the place of one with the same scope.
pub(super) fn put_idempotency_record(
    conn: &Connection,
    record: &IdempotencyRecord,
) -> Result<(), RepoError> {
    let IdempotencyRecord { scope, slot, .. } = record;
    prepare(
        conn,
        "INSERT OR REPLACE INTO kept_answers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        integer(scope.lock.get())?,
        scope.principal,
        scope.key.as_str(),
        slot.key.as_str(),
        optional(slot.index.map(KeyIndex::get))?,
        Bits(record.write.as_u128()).bytes(),
        optional(record.version_without_event.map(|v| v.0))?,
        integer(record.answer_deadline.as_millis())?,
        integer(record.expires_at.as_millis())?,
    ])
    .map(drop)
    .map_err(unavailable)
}

pub(super) fn idempotency_record(
    conn: &Connection,
    scope: IdempotencyScope,
) -> Result<Option<IdempotencyRecord>, RepoError> {
    let found = all(
        conn,
        "SELECT key_uuid, key_index, write_id, without_event, answered_by, until FROM kept_answers
         WHERE lock = :lock AND principal = :principal AND idempotency_key = :key",
        named_params! {
            ":lock": integer(scope.lock.get())?,
            ":principal": scope.principal,
            ":key": scope.key.as_str(),
        },
        |row| columns::read_idempotency_record(&scope, row),
    );
    found.map(|mut found| found.pop())
}

pub(super) fn purge(
    conn: &Connection,
    now: Timestamp,
    ended_before: Timestamp,
    limit: usize,
) -> Result<usize, RepoError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let answers = prepare(
        conn,
        "DELETE FROM kept_answers WHERE (lock, principal, idempotency_key) IN
         (SELECT lock, principal, idempotency_key FROM kept_answers WHERE until <= ?1 LIMIT ?2)",
    )?
    .execute(params![integer(now.as_millis())?, limit])
    .map_err(unavailable)?;
    let writes = prepare(
        conn,
        "DELETE FROM writes WHERE id IN (SELECT id FROM writes
         WHERE ended_at < ?1 AND lease_until IS NULL AND attention IS NULL LIMIT ?2)",
    )?
    .execute(params![integer(ended_before.as_millis())?, limit])
    .map_err(unavailable)?;
    Ok(answers + writes)
}

pub(super) fn backlog(
    conn: &Connection,
    recently: RangeInclusive<Timestamp>,
    oldest: Option<Duration>,
) -> Result<Backlog, RepoError> {
    let found = all(
        conn,
        columns::BACKLOG,
        named_params! {
            ":earliest": integer(recently.start().as_millis())?,
            ":latest": integer(recently.end().as_millis())?,
        },
        |row| columns::read_backlog(row, oldest),
    );
    found.map(|mut found| found.pop().unwrap_or_default())
}
