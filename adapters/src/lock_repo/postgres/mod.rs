//! Locks in a PostgreSQL database, which any number of replicas share: nothing else coordinates them.
//!
//! A save is one statement, and so one round trip and one transaction. Leases are counted by the database's clock.

mod import;
mod rows;

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::event::RecordedEvent;
use keywright_domain::lock::{Lock, LockSnapshot};
use keywright_domain::ports::{Due, ImportError, LockHistory, LockRepo, RepoError, Save, Standing};
use keywright_domain::rules::{KeptAnswer, RequestName};
use keywright_domain::values::{KeyIndex, LockId, LockVersion, Timestamp, WriteId};
use keywright_domain::write::{Owner, Write};
use tokio_postgres::Row;

use super::columns::{
    Bits, LockRow, STANDING, integer, optional, read_event, read_kept_answer, read_lock_id,
    read_standing, read_write,
};
use crate::database::Database;
use crate::json;

/// Holds locks, their events and their writes in a database. Clones share its connections.
#[derive(Clone)]
pub struct PostgresLockRepo {
    database: Database,
}

impl PostgresLockRepo {
    /// What stands in this database.
    pub const fn new(database: Database) -> Self {
        Self { database }
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
}

#[async_trait]
impl LockRepo for PostgresLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let rows = self
            .database
            .read(rows::LOAD, &[&integer(lock.get())?])
            .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let row = LockRow::read(lock, first, "fold")?;
        // A lock without live writes is one row without one.
        let live = rows.iter().filter(|row| rows::has_write(row));
        let live: Result<Vec<Write>, _> = live.map(read_write).collect();
        Ok(Some(row.with(live?)))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let events = rows::EventColumns::of(&save.events)?;
        let writes = rows::writes_json(&save.writes)?;
        let kept = save.kept.as_ref();
        let name = kept.map(|k| (&k.request.principal, k.request.key.as_str()));
        let key_index = kept.and_then(|k| k.slot.index).map(KeyIndex::get);
        let fold = save.folded.map(|lock| json::text(&json::LockState(&lock)));
        let moved = self
            .database
            .change(
                rows::SAVE,
                &[
                    &integer(save.lock.get())?,
                    &integer(save.revision.0)?,
                    &optional(save.shadow_version.map(|v| v.0))?,
                    &fold,
                    &events.versions,
                    &events.writes,
                    &events.types,
                    &events.data,
                    &writes,
                    &name.map(|(principal, _)| principal),
                    &name.map(|(_, key)| key),
                    &kept.map(|k| k.slot.key.as_str()),
                    &optional(key_index)?,
                    &kept.map(|k| Bits(k.write.as_u128())),
                    &optional(kept.and_then(|k| k.without_event).map(|v| v.0))?,
                    &optional(kept.map(|k| k.answered_by.as_millis()))?,
                    &optional(kept.map(|k| k.until.as_millis()))?,
                ],
            )
            .await?;
        match moved.first().map(|row| row.get::<_, i64>(0)) {
            Some(1) => Ok(()),
            _ => Err(RepoError::Stale),
        }
    }

    async fn claim(&self, owner: Owner, lease: Duration) -> Result<Option<Write>, RepoError> {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let owner = Bits(owner.0);
        let claimed = self
            .database
            .change(rows::CLAIM, &[&owner, &integer(lease)?])
            .await?;
        claimed.first().map(read_write).transpose()
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
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let until = integer(until.as_millis())?;
        let (after, id) = match after {
            Some((at, id)) => (integer(at.as_millis())?, id.as_u128()),
            None => (-1, 0),
        };
        let rows = self
            .database
            .read(rows::DUE, &[&until, &after, &Bits(id), &most(limit)])
            .await?;
        rows.iter().map(read_write).collect()
    }

    async fn standing(&self, sent_before: Timestamp) -> Result<Standing, RepoError> {
        let sql = STANDING.replace(":sent_before", "$1");
        let sent_before = integer(sent_before.as_millis())?;
        let rows = self.database.read(&sql, &[&sent_before]).await?;
        rows.first().map_or(Ok(Standing::default()), read_standing)
    }

    async fn kept_answer(&self, request: &RequestName) -> Result<Option<KeptAnswer>, RepoError> {
        let sql = "SELECT key_uuid, key_index, write_id, without_event, answered_by, until FROM kept_answers
                   WHERE lock = $1 AND principal = $2 AND idempotency_key = $3";
        let lock = integer(request.lock.get())?;
        let key = request.key.as_str();
        let rows = self
            .database
            .read(sql, &[&lock, &request.principal, &key])
            .await?;
        let kept = rows.first().map(|row| read_kept_answer(request, row));
        kept.transpose()
    }

    async fn forget(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let now = integer(now.as_millis())?;
        let ended_before = integer(ended_before.as_millis())?;
        let rows = self
            .database
            .change(rows::FORGET, &[&now, &ended_before, &most(limit)])
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

fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
