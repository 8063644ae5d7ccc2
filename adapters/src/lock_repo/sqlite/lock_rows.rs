//! Rows of locks and events.

use keywright_domain::model::{
    Lock, LockId, LockVersion, LoggedEvent, Position, RecordedEvent, Revision, ShadowVersion,
};
use keywright_domain::ports::RepoError;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use uuid::Uuid;

use super::live_write_ids::LiveIds;
use super::statement::{all, execute, prepare, unavailable};
use crate::json;
use crate::lock_repo::lock_row::LockRow;
use crate::lock_repo::row_mapping::{self, row_limit, to_optional_sql_integer, to_sql_integer};

/// A lock's row and the ids of its live writes.
pub(super) fn lock(conn: &Connection, id: LockId) -> Result<Option<(LockRow, LiveIds)>, RepoError> {
    let mut statement = prepare(
        conn,
        "SELECT saves AS revision, shadow_version, state, live FROM locks WHERE id = ?1",
    )?;
    let row = statement
        .query_row([to_sql_integer(id.get())?], |row| {
            let read = LockRow::read(id, row, "state");
            Ok(read.and_then(|lock| Ok((lock, live(id, row, 3)?))))
        })
        .optional();
    row.map_err(unavailable)?.transpose()
}

/// The live writes of a lock, if it has this revision.
pub(super) fn live_at(
    conn: &Connection,
    id: LockId,
    revision: Revision,
) -> Result<Option<LiveIds>, RepoError> {
    let mut statement = prepare(conn, "SELECT live FROM locks WHERE id = ?1 AND saves = ?2")?;
    let row = statement
        .query_row(
            [to_sql_integer(id.get())?, to_sql_integer(revision.0)?],
            |row| Ok(live(id, row, 0)),
        )
        .optional();
    row.map_err(unavailable)?.transpose()
}

fn live(id: LockId, row: &Row<'_>, column: usize) -> Result<LiveIds, RepoError> {
    let bytes = row.get(column).ok().and_then(LiveIds::new);
    bytes.ok_or_else(|| corrupt_live(id))
}

pub(super) fn corrupt_live(id: LockId) -> RepoError {
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
        "SELECT id, saves AS revision, shadow_version, state FROM locks WHERE id > :after ORDER BY id LIMIT :limit",
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
    let sql = "INSERT INTO locks (id, saves, shadow_version, state) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET saves = ?2, shadow_version = ?3, state = ?4";
    execute(conn, sql, params![id, revision, shadow_version, state]).map(drop)
}

/// Increments the revision of a lock. The other columns change only if they are given.
pub(super) fn update_lock(
    conn: &Connection,
    lock: LockId,
    folded: Option<&Lock>,
    shadow_version: Option<ShadowVersion>,
    live: Option<&LiveIds>,
) -> Result<(), RepoError> {
    let id = to_sql_integer(lock.get())?;
    let shadow_version = to_optional_sql_integer(shadow_version.map(|v| v.0))?;
    let state = folded.map(|lock| json::text(&json::LockState(lock)));
    let live = live.map(LiveIds::bytes);
    let sql = "UPDATE locks SET saves = saves + 1, shadow_version = coalesce(?2, shadow_version),
         state = coalesce(?3, state), live = coalesce(?4, live) WHERE id = ?1";
    execute(conn, sql, params![id, shadow_version, state, live]).map(drop)
}

pub(super) fn append_event(conn: &Connection, event: &RecordedEvent) -> Result<(), RepoError> {
    let lock = to_sql_integer(event.lock.get())?;
    let version = to_sql_integer(event.version.0)?;
    let write = event.write.map(|id| Uuid::from_u128(id.as_u128()));
    let (name, data) = (event.event.name(), json::text(&json::EventData(event)));
    let cause = row_mapping::cause_column(event);
    let sql = "INSERT INTO events (lock, version, write_id, type, data, cause) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    execute(conn, sql, params![lock, version, write, name, data, cause]).map(drop)
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
    let mut statement = prepare(
        conn,
        "SELECT coalesce(max(position), 0) FROM event_positions",
    )?;
    let last: i64 = statement
        .query_row([], |row| row.get(0))
        .map_err(unavailable)?;
    let position = u64::try_from(last);
    position
        .map(Position)
        .map_err(|_| row_mapping::corrupt("event_positions", "position", last.to_string()))
}

pub(super) fn events_after(
    conn: &Connection,
    after: Position,
    limit: usize,
) -> Result<Vec<LoggedEvent>, RepoError> {
    // No log is as long as the largest position.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    all(
        conn,
        "SELECT position, lock, version, write_id, type, data, cause FROM event_positions JOIN events USING (lock, version)
         WHERE position > :after ORDER BY position LIMIT :limit",
        named_params! { ":after": after, ":limit": row_limit(limit) },
        |row| row_mapping::read_logged_event(row),
    )
}
