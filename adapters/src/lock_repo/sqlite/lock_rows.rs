//! Rows of locks and events.

use keywright_domain::model::{
    Lock, LockId, LockSnapshot, LockVersion, LoggedEvent, Position, RecordedEvent,
};
use keywright_domain::ports::RepoError;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use uuid::Uuid;

use super::live_write_ids::LiveIds;
use super::statement::{all, execute, prepare, unavailable};
use super::write_rows;
use crate::json;
use crate::lock_repo::lock_row::LockRow;
use crate::lock_repo::row_mapping::{self, row_limit, to_optional_sql_integer, to_sql_integer};

/// A lock's row and the ids of its live writes.
pub(super) fn lock(conn: &Connection, id: LockId) -> Result<Option<(LockRow, LiveIds)>, RepoError> {
    let mut statement = prepare(
        conn,
        "SELECT applied_revision AS revision, shadow_version, state, live FROM locks WHERE id = ?1",
    )?;
    let row = statement
        .query_row([to_sql_integer(id.get())?], |row| {
            let read = LockRow::read(id, row, "state");
            Ok(read.and_then(|lock| Ok((lock, live(id, row, 3)?))))
        })
        .optional();
    row.map_err(unavailable)?.transpose()
}

/// Reads a lock and its live writes. `conn` is in a transaction, so both have the same revision.
pub(super) fn snapshot(conn: &Connection, id: LockId) -> Result<Option<LockSnapshot>, RepoError> {
    let Some((row, live)) = lock(conn, id)? else {
        return Ok(None);
    };
    let live = live.ids().map(|write| {
        let found = write_rows::write(conn, write)?;
        found.ok_or_else(|| corrupt_live(id))
    });
    Ok(Some(row.into_snapshot(live.collect::<Result<_, _>>()?)))
}

fn live(id: LockId, row: &Row<'_>, column: usize) -> Result<LiveIds, RepoError> {
    let bytes = row.get(column).ok().and_then(LiveIds::new);
    bytes.ok_or_else(|| corrupt_live(id))
}

fn corrupt_live(id: LockId) -> RepoError {
    row_mapping::corrupt("locks", "live", id.to_string())
}

/// A page of the locks, in the order of their ids.
pub(super) fn locks(
    conn: &Connection,
    after: Option<LockId>,
    limit: usize,
) -> Result<Vec<Lock>, RepoError> {
    let after = after.map_or(Ok(0), |id| to_sql_integer(id.get()))?;
    all(
        conn,
        "SELECT id, applied_revision AS revision, shadow_version, state FROM locks WHERE id > :after ORDER BY id LIMIT :limit",
        named_params! { ":after": after, ":limit": row_limit(limit) },
        |row| {
            let id = row_mapping::read_lock_id(row)?;
            LockRow::read(id, row, "state").map(|row| row.lock)
        },
    )
}

/// Inserts or replaces a lock's row, with the exception of its live writes.
pub(super) fn put_lock(conn: &Connection, row: &LockRow) -> Result<(), RepoError> {
    let (id, revision) = (row.lock.id.get(), row.revision.0);
    let (id, revision) = (to_sql_integer(id)?, to_sql_integer(revision)?);
    let shadow_version = to_optional_sql_integer(row.shadow_version.map(|v| v.0))?;
    let state = json::text(&json::LockState(&row.lock));
    let sql =
        "INSERT INTO locks (id, applied_revision, shadow_version, state) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET applied_revision = ?2, shadow_version = ?3, state = ?4";
    execute(conn, sql, params![id, revision, shadow_version, state]).map(drop)
}

/// Replaces the row of a known lock.
pub(super) fn update_lock(conn: &Connection, snapshot: &LockSnapshot) -> Result<(), RepoError> {
    let id = to_sql_integer(snapshot.lock.id.get())?;
    let revision = to_sql_integer(snapshot.revision.0)?;
    let shadow_version = to_optional_sql_integer(snapshot.shadow_version.map(|v| v.0))?;
    let state = json::text(&json::LockState(&snapshot.lock));
    let live = LiveIds::of(snapshot);
    let sql = "UPDATE locks SET applied_revision = ?2, shadow_version = ?3, state = ?4, live = ?5 WHERE id = ?1";
    let columns = params![id, revision, shadow_version, state, live.bytes()];
    match execute(conn, sql, columns)? {
        1 => Ok(()),
        _ => Err(row_mapping::corrupt("locks", "id", id.to_string())),
    }
}

pub(super) fn append_event(
    conn: &Connection,
    position: Position,
    event: &RecordedEvent,
) -> Result<(), RepoError> {
    let position = to_sql_integer(position.0)?;
    let lock = to_sql_integer(event.lock.get())?;
    let version = to_sql_integer(event.version.0)?;
    let write = event.write.map(|id| Uuid::from_u128(id.as_u128()));
    let (name, data) = (event.event.name(), json::text(&json::EventData(event)));
    let cause = row_mapping::cause_column(event);
    let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let columns = params![position, lock, version, write, name, data, cause];
    execute(conn, sql, columns).map(drop)
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
    let lock_id = to_sql_integer(lock.get())?;
    all(
        conn,
        "SELECT version, write_id, type, data, cause FROM events
         WHERE lock = :lock AND version >= :first ORDER BY version LIMIT :limit",
        named_params! { ":lock": lock_id, ":first": first, ":limit": row_limit(limit) },
        |row| row_mapping::read_event(lock, row),
    )
}

pub(super) fn last_position(conn: &Connection) -> Result<Position, RepoError> {
    let mut statement = prepare(conn, "SELECT coalesce(max(position), 0) FROM events")?;
    let last: i64 = statement
        .query_row([], |row| row.get(0))
        .map_err(unavailable)?;
    let position = u64::try_from(last);
    position
        .map(Position)
        .map_err(|_| row_mapping::corrupt("events", "position", last.to_string()))
}

/// Events after the position `after`, up to `last`.
pub(super) fn events_after(
    conn: &Connection,
    after: Position,
    last: Position,
    limit: usize,
) -> Result<Vec<LoggedEvent>, RepoError> {
    // No log is as long as the largest position.
    let number = |position: Position| i64::try_from(position.0).unwrap_or(i64::MAX);
    all(
        conn,
        "SELECT position, lock, version, write_id, type, data, cause FROM events
         WHERE position > :after AND position <= :last ORDER BY position LIMIT :limit",
        named_params! { ":after": number(after), ":last": number(last), ":limit": row_limit(limit) },
        |row| row_mapping::read_logged_event(row),
    )
}
