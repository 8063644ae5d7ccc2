//! The rows of idempotency records; and [`purge`], which deletes expired ones and also rows of old writes.

use keywright_domain::model::{IdempotencyRecord, IdempotencyScope, KeyIndex, Timestamp};
use keywright_domain::ports::RepoError;
use rusqlite::{Connection, named_params, params};
use uuid::Uuid;

use super::statement::{all, execute};
use crate::lock_repo::row_mapping::{self, row_limit, to_optional_sql_integer, to_sql_integer};

/// Inserts a record, or replaces the one with the same scope.
pub(super) fn upsert_record(
    conn: &Connection,
    record: &IdempotencyRecord,
) -> Result<(), RepoError> {
    let IdempotencyRecord { scope, slot, .. } = record;
    let sql = "INSERT OR REPLACE INTO kept_answers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let columns = params![
        to_sql_integer(scope.lock.get())?,
        scope.principal,
        scope.key.as_str(),
        slot.key.as_str(),
        to_optional_sql_integer(slot.index.map(KeyIndex::get))?,
        Uuid::from_u128(record.write.as_u128()),
        to_optional_sql_integer(record.version_without_event.map(|v| v.0))?,
        to_sql_integer(record.answer_deadline.as_millis())?,
        to_sql_integer(record.expires_at.as_millis())?,
    ];
    execute(conn, sql, columns).map(drop)
}

/// Checks that a record can be inserted.
pub(super) fn check_numbers(record: &IdempotencyRecord) -> Result<(), RepoError> {
    to_optional_sql_integer(record.slot.index.map(KeyIndex::get))?;
    to_optional_sql_integer(record.version_without_event.map(|v| v.0))?;
    to_sql_integer(record.answer_deadline.as_millis())?;
    to_sql_integer(record.expires_at.as_millis()).map(drop)
}

pub(super) fn find_record(
    conn: &Connection,
    scope: IdempotencyScope,
) -> Result<Option<IdempotencyRecord>, RepoError> {
    let found = all(
        conn,
        "SELECT key_uuid, key_index, write_id, without_event, answered_by, until FROM kept_answers
         WHERE lock = :lock AND principal = :principal AND idempotency_key = :key",
        named_params! {
            ":lock": to_sql_integer(scope.lock.get())?,
            ":principal": scope.principal,
            ":key": scope.key.as_str(),
        },
        |row| row_mapping::read_idempotency_record(&scope, row),
    );
    found.map(|mut found| found.pop())
}

/// Deletes expired idempotency records and old writes, at most `limit` of each; see
/// [`LockHistory::purge`](keywright_domain::ports::LockHistory::purge).
pub(super) fn purge(
    conn: &Connection,
    now: Timestamp,
    ended_before: Timestamp,
    limit: usize,
) -> Result<usize, RepoError> {
    let (now, ended_before) = (now.as_millis(), ended_before.as_millis());
    let (now, ended_before) = (to_sql_integer(now)?, to_sql_integer(ended_before)?);
    let limit = row_limit(limit);
    let expired = "DELETE FROM kept_answers WHERE (lock, principal, idempotency_key) IN
         (SELECT lock, principal, idempotency_key FROM kept_answers WHERE until <= ?1 LIMIT ?2)";
    let ended = "DELETE FROM writes WHERE id IN (SELECT id FROM writes
         WHERE ended_at < ?1 AND lease_until IS NULL AND attention IS NULL LIMIT ?2)";
    let records = execute(conn, expired, [now, limit])?;
    Ok(records + execute(conn, ended, [ended_before, limit])?)
}
