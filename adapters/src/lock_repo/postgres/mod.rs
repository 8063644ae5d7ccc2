//! Locks in a PostgreSQL database, which coordinates any number of replicas.
//!
//! A save is one statement, so it needs one round trip and one transaction. Concurrent saves of several locks share a
//! statement, and so do concurrent loads. A save that a shared statement skips gets its own. Each replica measures leases by
//! its own monotonic clock.

mod batcher;
mod event_positions;
mod import;
mod rows;
mod statements;

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockSnapshot,
    LockVersion, LoggedEvent, Position, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};
use tokio_postgres::Row;
use uuid::Uuid;

use super::lock_row::LockRow;
use super::observed_leases::{MAX_OBSERVED, ObservedLeases};
use super::row_mapping::{
    read_event, read_idempotency_record, read_lock_id, read_open_intent, read_write, row_limit,
    to_sql_integer,
};
use crate::postgres::{PostgresPool, QueryError};
use batcher::Batcher;
use rows::SaveColumns;

/// Stores locks, their events and their writes in a database. Clones share its connections. It must be used in a tokio runtime.
#[derive(Clone)]
pub struct PostgresLockRepo {
    pool: PostgresPool,
    leases: ObservedLeases,
    loads: Batcher<LockId, Loaded>,
    saves: Batcher<Arc<Save>, BatchedSave>,
}

/// The task that ran a statement panicked or was dropped.
const STATEMENT_ENDED: &str = "the task of the statement has ended";

type Loaded = Result<Option<LockSnapshot>, RepoError>;

/// The result of one save in a batch. `None`: it was not applied, and a statement of its own, which may wait, has to find out
/// why. Another transaction holds the lock's row, the lock has another revision, or a value of any save in the batch is
/// invalid.
type BatchedSave = Option<Result<(), RepoError>>;

impl PostgresLockRepo {
    /// The locks in this database. `timer` measures leases, from the first claim that reads them.
    pub fn new(pool: PostgresPool, timer: Arc<dyn Timer>) -> Self {
        let (loads, saves) = (pool.clone(), pool.clone());
        Self {
            pool,
            leases: ObservedLeases::new(timer),
            loads: Batcher::new(|_, _| true, move |locks| load_batch(loads.clone(), locks)),
            saves: Batcher::new(
                // A statement can update the row of a lock only once.
                |one: &Arc<Save>, other| one.lock != other.lock,
                move |batch| save_batch(saves.clone(), batch),
            ),
        }
    }

    /// [`LockHistory::import`] for more events than fit in memory. An event with the version
    /// [`NEXT_VERSION`](super::NEXT_VERSION) takes the next version of its lock. One import runs at a time, and saves of the
    /// locks in it wait for its end.
    ///
    /// # Errors
    /// The first error of `events`, or of the import. Nothing is imported then.
    pub async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send,
    {
        import::import_all(&self.pool, events).await
    }

    async fn observe_leases(&self) -> Result<(), RepoError> {
        if self.leases.should_read() {
            let sql = statements::OPEN_INTENTS;
            let rows = self.pool.read(sql, &[&MAX_OBSERVED]).await?;
            let open: Result<_, _> = rows.iter().map(read_open_intent).collect();
            self.leases.observe(open?);
        }
        Ok(())
    }
}

#[async_trait]
impl LockRepo for PostgresLockRepo {
    async fn load(&self, lock: LockId) -> Loaded {
        let loaded = self.loads.run(lock).await;
        loaded.unwrap_or_else(|| Err(RepoError::Unavailable(STATEMENT_ENDED.into())))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let save = Arc::new(save);
        match self.saves.run(save.clone()).await {
            Some(Some(saved)) => saved,
            Some(None) => save_alone(&self.pool, save).await,
            None => Err(RepoError::Unknown(STATEMENT_ENDED.into())),
        }
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let (new_worker, millis) = (Uuid::from_u128(worker.0), to_sql_integer(millis)?);
        self.observe_leases().await?;
        while let Some((id, expired)) = self.leases.next_expired() {
            let write = Uuid::from_u128(id.as_u128());
            let old_worker = Uuid::from_u128(expired.worker.0);
            let epoch = to_sql_integer(expired.epoch.0)?;
            let (pool, sql) = (&self.pool, &statements::CLAIM);
            let claimed = pool
                .change(sql, &[&new_worker, &millis, &write, &old_worker, &epoch])
                .await?;
            if let Some(row) = claimed.first() {
                let intent = expired.taken_over(worker, lease);
                self.leases.claimed(id, intent);
                return read_write(row).map(Some);
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LockHistory for PostgresLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        let id = Uuid::from_u128(id.as_u128());
        let found = self.pool.read(&statements::WRITE, &[&id]).await?;
        found.first().map(read_write).transpose()
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let Ok(first) = i64::try_from(first.0) else {
            // No stream is that long.
            return Ok(Vec::new());
        };
        let sql = "SELECT version, write_id, type, data, cause FROM events
                   WHERE lock = $1 AND version >= $2 ORDER BY version LIMIT $3";
        let (id, limit) = (to_sql_integer(lock.get())?, row_limit(limit));
        let rows = self.pool.read(sql, &[&id, &first, &limit]).await?;
        rows.iter().map(|row| read_event(lock, row)).collect()
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        event_positions::events_after(&self.pool, after, limit).await
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let limit = row_limit(limit);
        let rows = match before.map(|id| Uuid::from_u128(id.as_u128())) {
            Some(before) => {
                self.pool
                    .read(&statements::WRITES, &[&before, &limit])
                    .await?
            }
            None => {
                self.pool
                    .read(&statements::NEWEST_WRITES, &[&limit])
                    .await?
            }
        };
        rows.iter().map(read_write).collect()
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        event_positions::last_position(&self.pool).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let until = to_sql_integer(until.as_millis())?;
        let (after, id) = match after {
            Some(due) => (to_sql_integer(due.at.as_millis())?, due.id.as_u128()),
            None => (-1, 0),
        };
        let (id, limit, sql) = (Uuid::from_u128(id), row_limit(limit), &statements::DUE);
        let rows = self.pool.read(sql, &[&until, &after, &id, &limit]).await?;
        rows.iter().map(read_write).collect()
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let earliest = to_sql_integer(recent_times.start().as_millis())?;
        let latest = to_sql_integer(recent_times.end().as_millis())?;
        self.observe_leases().await?;
        let oldest = self.leases.oldest();
        let rows = self
            .pool
            .read(statements::BACKLOG, &[&earliest, &latest])
            .await?;
        let backlog = rows.first().map(|row| rows::read_backlog(row, oldest));
        backlog.unwrap_or_else(|| Ok(Backlog::default()))
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let sql = "SELECT key_uuid, key_index, write_id, without_event, answered_by, until FROM kept_answers
                   WHERE lock = $1 AND principal = $2 AND idempotency_key = $3";
        let lock = to_sql_integer(scope.lock.get())?;
        let (principal, key) = (&scope.principal, scope.key.as_str());
        let rows = self.pool.read(sql, &[&lock, &principal, &key]).await?;
        let record = rows.first().map(|row| read_idempotency_record(scope, row));
        record.transpose()
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let now = to_sql_integer(now.as_millis())?;
        let ended = to_sql_integer(ended_before.as_millis())?;
        let (sql, limit) = (statements::PURGE, row_limit(limit));
        let rows = self.pool.change(sql, &[&now, &ended, &limit]).await?;
        let count = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(usize::try_from(count).unwrap_or_default())
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let sql = "SELECT id, revision, shadow_version, state FROM locks WHERE id > $1 ORDER BY id LIMIT $2";
        let after = after.map_or(Ok(0), |id| to_sql_integer(id.get()))?;
        let rows = self.pool.read(sql, &[&after, &row_limit(limit)]).await?;
        let lock = |row: &Row| {
            let id = read_lock_id(row)?;
            LockRow::read(id, row, "state").map(|row| row.lock)
        };
        rows.iter().map(lock).collect()
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        self.import_all(events.into_iter().map(Ok)).await
    }
}

async fn load_batch(pool: PostgresPool, locks: Vec<LockId>) -> Vec<Loaded> {
    let found = async {
        let ids: Result<Vec<i64>, _> = locks
            .iter()
            .map(|lock| to_sql_integer(lock.get()))
            .collect();
        let rows = pool.read(&statements::LOAD, &[&ids?]).await?;
        let mut found: HashMap<i64, Vec<Row>> = HashMap::new();
        for row in rows {
            found.entry(row.get("of_lock")).or_default().push(row);
        }
        Ok(found)
    };
    let found: Result<_, RepoError> = found.await;
    let loaded = |lock: &LockId| {
        let found = found.as_ref().map_err(Clone::clone)?;
        let rows = found.get(&to_sql_integer(lock.get())?);
        rows.map(|rows| snapshot(*lock, rows)).transpose()
    };
    locks.iter().map(loaded).collect()
}

/// `rows`: at least one row of [`statements::LOAD`].
fn snapshot(lock: LockId, rows: &[Row]) -> Result<LockSnapshot, RepoError> {
    let row = LockRow::read(lock, &rows[0], "lock_state")?;
    // A lock without live writes has one row without a write.
    let live = rows.iter().filter(|row| rows::has_write(row));
    let live: Result<Vec<Write>, _> = live.map(read_write).collect();
    Ok(row.into_snapshot(live?))
}

async fn save_alone(pool: &PostgresPool, save: Arc<Save>) -> Result<(), RepoError> {
    let saved = saved_locks(pool, &statements::SAVE, &[save]).await;
    if saved.map_err(|failed| failed.error)?.is_empty() {
        return Err(RepoError::Stale);
    }
    Ok(())
}

async fn save_batch(pool: PostgresPool, saves: Vec<Arc<Save>>) -> Vec<BatchedSave> {
    let saved = saved_locks(&pool, &statements::SAVE_BATCH, &saves).await;
    let result = |save: &Arc<Save>| match &saved {
        Ok(saved) => saved.contains(&save.lock.get()).then_some(Ok(())),
        Err(failed) if failed.is_caused_by_values => None,
        Err(failed) => Some(Err(failed.error.clone())),
    };
    saves.iter().map(result).collect()
}

/// Executes a statement of saves, and returns the locks whose saves were applied.
async fn saved_locks(
    pool: &PostgresPool,
    sql: &str,
    saves: &[Arc<Save>],
) -> Result<HashSet<u64>, QueryError> {
    let columns = SaveColumns::of(saves).map_err(QueryError::caused_by_values)?;
    let saved = pool.try_change(sql, &columns.parameters()).await?;
    let id = |row: &Row| u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    Ok(saved.iter().map(id).collect())
}
