//! The order of all events.
//!
//! Transactions of several replicas commit in another order than they begin, so an event cannot have its position when it is inserted: a
//! reader could be past it already. Positions are given to committed events, in transactions that follow one another.

use keywright_domain::model::{LoggedEvent, Position};
use keywright_domain::ports::RepoError;

use crate::error_text::text_with_sources;
use crate::lock_repo::row_mapping::{read_logged_event, row_limit};
use crate::postgres::PostgresPool;

/// The advisory lock of the transaction that gives positions.
const POSITIONS_LOCK: i64 = 0x4b57_6570; // "KWep"

/// The minimum number of events that get positions in one transaction, if there are so many.
const MIN_BATCH: usize = 1000;

const READ: &str = "SELECT position, lock, version, write_id, type, data, cause FROM events
    WHERE position > $1 ORDER BY position LIMIT $2";

const LAST: &str = "SELECT coalesce(max(position), 0) FROM events";

/// Whether an event has no position. Most readings at the end of the log find none, and begin no transaction.
const UNNUMBERED: &str = "SELECT FROM events WHERE position IS NULL LIMIT 1";

/// Gives positions to events without one. Events of a lock are in the order of their versions: an event is committed after the earlier ones
/// of its lock.
const NUMBER: &str = "
UPDATE events SET position = numbered.position FROM (
  SELECT lock, version, (SELECT coalesce(max(position), 0) FROM events) + row_number() OVER (ORDER BY lock, version) AS position
  FROM (SELECT lock, version FROM events WHERE position IS NULL ORDER BY lock, version LIMIT $1) AS next
) AS numbered
WHERE events.lock = numbered.lock AND events.version = numbered.version";

pub(super) async fn events_after(
    pool: &PostgresPool,
    after: Position,
    limit: usize,
) -> Result<Vec<LoggedEvent>, RepoError> {
    // No log is as long as the largest position.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let mut rows = pool.read(READ, &[&after, &row_limit(limit)]).await?;
    if rows.len() < limit && !pool.read(UNNUMBERED, &[]).await?.is_empty() {
        number(pool, limit).await?;
        rows = pool.read(READ, &[&after, &row_limit(limit)]).await?;
    }
    rows.iter().map(read_logged_event).collect()
}

pub(super) async fn last_position(pool: &PostgresPool) -> Result<Position, RepoError> {
    while !pool.read(UNNUMBERED, &[]).await?.is_empty() {
        number(pool, MIN_BATCH).await?;
    }
    let rows = pool.read(LAST, &[]).await?;
    let last: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(Position(u64::try_from(last).unwrap_or(0)))
}

/// Gives positions to at least `limit` events that are committed, if there are so many.
async fn number(pool: &PostgresPool, limit: usize) -> Result<(), RepoError> {
    let failed = |e: tokio_postgres::Error| RepoError::Unavailable(text_with_sources(&e));
    let connection = pool.connection().await;
    let mut connection = connection.map_err(|e| RepoError::Unavailable(e.to_string()))?;
    let transaction = connection.client().transaction().await.map_err(failed)?;
    // Each statement sees what was committed before it, so the update sees the positions of the transaction that had the lock.
    let lock = format!("SELECT pg_advisory_xact_lock({POSITIONS_LOCK})");
    transaction.batch_execute(&lock).await.map_err(failed)?;
    let update = transaction.prepare_cached(NUMBER).await.map_err(failed)?;
    let batch = row_limit(limit.max(MIN_BATCH));
    transaction
        .execute(&update, &[&batch])
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    connection.release();
    Ok(())
}
