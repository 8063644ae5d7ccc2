//! Locks in a PostgreSQL database, which any number of replicas share: nothing else coordinates them.
//!
//! A save is one statement, and so one round trip and one transaction. Those of several locks that come at once share it, and so do
//! loads; a save that a shared one leaves out has one of its own. Leases are counted by each replica's own monotonic clock.

mod batcher;
mod import;
mod rows;

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockSnapshot,
    LockVersion, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};
use tokio_postgres::Row;

use super::columns::{
    BACKLOG, Bits, LockRow, integer, read_backlog, read_event, read_idempotency_record,
    read_lock_id, read_open_intent, read_write,
};
use super::leases::{MAX_WATCHED, ObservedLeases, OpenIntent};
use crate::postgres::{PostgresPool, QueryError};
use batcher::Batcher;
use rows::SaveColumns;

/// Holds locks, their events and their writes in a database. Clones share its connections. It lives in a runtime of tokio.
#[derive(Clone)]
pub struct PostgresLockRepo {
    database: PostgresPool,
    leases: ObservedLeases,
    loads: Batcher<LockId, Loaded>,
    saves: Batcher<Arc<Save>, Saved>,
}

/// A statement was lost in this process.
const NO_END: &str = "the statement came to no end";

type Loaded = Result<Option<LockSnapshot>, RepoError>;

/// What came of a save among others. `None`: it was not done, and why is found out alone, where it may wait: another one is at its
/// lock, or the lock has another revision, or a value of one of those that it was together with is refused.
type Saved = Option<Result<(), RepoError>>;

impl PostgresLockRepo {
    /// What stands in this database. Leases are counted by `timer`, from the first claim on that finds them.
    pub fn new(database: PostgresPool, timer: Arc<dyn Timer>) -> Self {
        let (loading, saving) = (database.clone(), database.clone());
        Self {
            database,
            leases: ObservedLeases::new(timer),
            loads: Batcher::new(|_, _| true, move |locks| load(loading.clone(), locks)),
            saves: Batcher::new(
                // A lock has one row to move.
                |one: &Arc<Save>, other| one.lock != other.lock,
                move |saves| save_together(saving.clone(), saves),
            ),
        }
    }

    /// As [`LockHistory::import`], for more events than fit in memory: all of them or, from the first error on,
    /// none. An event of version [`super::NEXT_VERSION`] goes on from whatever its lock has. One import at a time
    /// runs, and locks that it touches wait for its end.
    ///
    /// # Errors
    /// What `events` says, or why one of them was not taken.
    pub async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send,
    {
        import::import_all(&self.database, events).await
    }

    async fn observe_leases(&self) -> Result<(), RepoError> {
        if self.leases.should_observe() {
            let rows = self
                .database
                .read(rows::OPEN_INTENTS, &[&MAX_WATCHED])
                .await?;
            let open: Result<_, _> = rows.iter().map(read_open_intent).collect();
            self.leases.observe(open?);
        }
        Ok(())
    }
}

#[async_trait]
impl LockRepo for PostgresLockRepo {
    async fn load(&self, lock: LockId) -> Loaded {
        let loaded = self.loads.ask(lock).await;
        loaded.unwrap_or_else(|| Err(RepoError::Unavailable(NO_END.into())))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let save = Arc::new(save);
        match self.saves.ask(save.clone()).await {
            Some(Some(saved)) => saved,
            Some(None) => save_alone(&self.database, save).await,
            None => Err(RepoError::Unknown(NO_END.into())),
        }
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let (new_worker, millis) = (Bits(worker.0), integer(millis)?);
        self.observe_leases().await?;
        while let Some(overdue) = self.leases.next_overdue() {
            let (write, old_worker) = (Bits(overdue.write.as_u128()), Bits(overdue.worker.0));
            let epoch = integer(overdue.epoch.0)?;
            let claimed = self
                .database
                .change(
                    rows::CLAIM,
                    &[&new_worker, &millis, &write, &old_worker, &epoch],
                )
                .await?;
            if let Some(row) = claimed.first() {
                self.leases.claimed(OpenIntent {
                    worker,
                    epoch: overdue.epoch.next(),
                    lease,
                    ..overdue
                });
                return read_write(row).map(Some);
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LockHistory for PostgresLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        let found = self
            .database
            .read(rows::WRITE, &[&Bits(id.as_u128())])
            .await?;
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
        let sql = "SELECT version, write_id, type, data FROM events
                   WHERE lock = $1 AND version >= $2 ORDER BY version LIMIT $3";
        let id = integer(lock.get())?;
        let rows = self
            .database
            .read(sql, &[&id, &first, &most(limit)])
            .await?;
        rows.iter().map(|row| read_event(lock, row)).collect()
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let until = integer(until.as_millis())?;
        let (after, id) = match after {
            Some(due) => (integer(due.at.as_millis())?, due.id.as_u128()),
            None => (-1, 0),
        };
        let rows = self
            .database
            .read(rows::DUE, &[&until, &after, &Bits(id), &most(limit)])
            .await?;
        rows.iter().map(read_write).collect()
    }

    async fn backlog(&self, recently: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let sql = BACKLOG.replace(":earliest", "$1").replace(":latest", "$2");
        let (earliest, latest) = (recently.start().as_millis(), recently.end().as_millis());
        let (earliest, latest) = (integer(earliest)?, integer(latest)?);
        self.observe_leases().await?;
        let oldest = self.leases.oldest();
        let rows = self.database.read(&sql, &[&earliest, &latest]).await?;
        let backlog = rows.first().map(|row| read_backlog(row, oldest));
        backlog.unwrap_or_else(|| Ok(Backlog::default()))
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let sql = "SELECT key_uuid, key_index, write_id, without_event, answered_by, until FROM kept_answers
                   WHERE lock = $1 AND principal = $2 AND idempotency_key = $3";
        let lock = integer(scope.lock.get())?;
        let key = scope.key.as_str();
        let rows = self
            .database
            .read(sql, &[&lock, &scope.principal, &key])
            .await?;
        let record = rows.first().map(|row| read_idempotency_record(scope, row));
        record.transpose()
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let now = integer(now.as_millis())?;
        let ended_before = integer(ended_before.as_millis())?;
        let rows = self
            .database
            .change(rows::PURGE, &[&now, &ended_before, &most(limit)])
            .await?;
        let count = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(usize::try_from(count).unwrap_or_default())
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let sql = "SELECT id, revision, shadow_version, state FROM locks WHERE id > $1 ORDER BY id LIMIT $2";
        let after = after.map_or(Ok(0), |id| integer(id.get()))?;
        let rows = self.database.read(sql, &[&after, &most(limit)]).await?;
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

async fn load(database: PostgresPool, locks: Vec<LockId>) -> Vec<Loaded> {
    let found = async {
        let ids: Result<Vec<i64>, _> = locks.iter().map(|lock| integer(lock.get())).collect();
        let rows = database.read(rows::LOAD, &[&ids?]).await?;
        let mut found: HashMap<i64, Vec<Row>> = HashMap::new();
        for row in rows {
            found.entry(row.get("of_lock")).or_default().push(row);
        }
        Ok(found)
    };
    let found: Result<_, RepoError> = found.await;
    let loaded = |lock: &LockId| {
        let found = found.as_ref().map_err(Clone::clone)?;
        let rows = found.get(&integer(lock.get())?);
        rows.map(|rows| snapshot(*lock, rows)).transpose()
    };
    locks.iter().map(loaded).collect()
}

/// `rows`: at least one.
fn snapshot(lock: LockId, rows: &[Row]) -> Result<LockSnapshot, RepoError> {
    let row = LockRow::read(lock, &rows[0], "fold")?;
    // A lock without live writes is one row without one.
    let live = rows.iter().filter(|row| rows::has_write(row));
    let live: Result<Vec<Write>, _> = live.map(read_write).collect();
    Ok(row.with(live?))
}

async fn save_alone(database: &PostgresPool, save: Arc<Save>) -> Result<(), RepoError> {
    let moved = moved(database, rows::SAVE, &[save]).await;
    let moved = moved.map_err(|failed| failed.error)?;
    if moved.is_empty() {
        return Err(RepoError::Stale);
    }
    Ok(())
}

async fn save_together(database: PostgresPool, saves: Vec<Arc<Save>>) -> Vec<Saved> {
    let moved = moved(&database, rows::SAVE_BATCH, &saves).await;
    let saved = |save: &Arc<Save>| match &moved {
        Ok(moved) => moved.contains(&save.lock.get()).then_some(Ok(())),
        Err(failed) if failed.is_caused_by_values => None,
        Err(failed) => Some(Err(failed.error.clone())),
    };
    saves.iter().map(saved).collect()
}

/// The locks whose rows have moved.
async fn moved(
    database: &PostgresPool,
    sql: &str,
    saves: &[Arc<Save>],
) -> Result<HashSet<u64>, QueryError> {
    let columns = SaveColumns::of(saves).map_err(QueryError::caused_by_values)?;
    let moved = database.try_change(sql, &columns.parameters()).await?;
    let id = |row: &Row| u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    Ok(moved.iter().map(id).collect())
}

fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
