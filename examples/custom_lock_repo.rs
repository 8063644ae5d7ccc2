//! A `LockRepo` and `LockHistory` of one's own: everything in ordered maps behind one mutex.
//!
//! It shows what a store owes the domain: a save is one step, conditional on the lock's revision; a claim takes one intent whose lease has
//! ended by a monotonic clock; reads see every save that was answered. A durable store keeps the same promises on disk.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, FoldError, IdempotencyRecord, IdempotencyScope, Intent, Lock, LockId,
    LockSnapshot, LockVersion, LoggedEvent, Position, RecordedEvent, Revision, Save, ShadowVersion,
    Tick, Timestamp, WorkerId, Write, WriteId, WriteState,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};

/// A lock as it is stored.
#[derive(Clone)]
struct LockRow {
    lock: Lock,
    revision: Revision,
    shadow_version: Option<ShadowVersion>,
    events: Vec<RecordedEvent>,
}

/// A write as it is stored.
struct WriteRow {
    write: Write,
    /// When the lease of a prepared write ends, by the monotonic clock.
    lease_ends: Option<Tick>,
    open_since: Tick,
}

#[derive(Default)]
struct Tables {
    locks: BTreeMap<LockId, LockRow>,
    writes: BTreeMap<WriteId, WriteRow>,
    records: BTreeMap<IdempotencyScope, IdempotencyRecord>,
    /// All events in the order in which they were recorded. The position of the first is 1.
    log: Vec<RecordedEvent>,
}

/// Locks in maps.
struct MapLockRepo {
    tables: Mutex<Tables>,
    timer: Arc<dyn Timer>,
}

impl MapLockRepo {
    fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            tables: Mutex::default(),
            timer,
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Inserts or replaces a write. The lease of a prepared write starts now.
    fn put(&mut self, write: Write, now: Tick) {
        let lease_ends = write.intent().map(|intent| now.after(intent.lease));
        let open_since = self.writes.get(&write.id).map_or(now, |row| row.open_since);
        let row = WriteRow {
            write,
            lease_ends,
            open_since,
        };
        self.writes.insert(row.write.id, row);
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.values().map(|row| &row.write)
    }

    fn change_lock(&mut self, lock: LockId, change: impl FnOnce(&mut LockRow)) {
        if let Some(row) = self.locks.get_mut(&lock) {
            change(row);
            row.revision = row.revision.next();
        }
    }
}

#[async_trait]
impl LockRepo for MapLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let tables = self.tables();
        Ok(tables.locks.get(&lock).map(|row| {
            let writes = tables.writes().filter(|w| w.lock == lock).cloned();
            let writes = writes.collect();
            LockSnapshot::new(row.lock.clone(), row.revision, row.shadow_version, writes)
        }))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let (mut tables, now) = (self.tables(), self.timer.tick());
        let stored = tables.locks.get(&save.lock).map(|row| row.revision);
        if stored != Some(save.revision) {
            return Err(RepoError::Stale);
        }
        tables.log.extend(save.events.iter().cloned());
        tables.change_lock(save.lock, |row| {
            row.events.extend(save.events);
            row.shadow_version = save.shadow_version.or(row.shadow_version);
            if let Some(folded) = save.folded {
                row.lock = *folded;
            }
        });
        for write in save.writes {
            tables.put(write, now);
        }
        if let Some(record) = save.idempotency {
            tables.records.insert(record.scope.clone(), *record);
        }
        Ok(())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let (mut tables, now) = (self.tables(), self.timer.tick());
        let ended = tables.writes.values().filter_map(|row| {
            let ends = row.lease_ends.filter(|ends| *ends <= now)?;
            Some((ends, row))
        });
        let longest_overdue = ended.min_by_key(|(ends, row)| (*ends, row.write.id));
        let Some(mut write) = longest_overdue.map(|(_, row)| row.write.clone()) else {
            return Ok(None);
        };
        let epoch = write.intent().map(|intent| intent.epoch.next());
        if let Some(epoch) = epoch {
            write.state = WriteState::Prepared(Intent {
                worker,
                epoch,
                lease,
            });
        }
        tables.put(write.clone(), now);
        tables.change_lock(write.lock, |_| {});
        Ok(Some(write))
    }
}

#[async_trait]
impl LockHistory for MapLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        Ok(self.tables().writes.get(&id).map(|row| row.write.clone()))
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let tables = self.tables();
        let events = tables
            .locks
            .get(&lock)
            .into_iter()
            .flat_map(|row| &row.events);
        let events = events.filter(|event| event.version >= first).take(limit);
        Ok(events.cloned().collect())
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let tables = self.tables();
        let read = usize::try_from(after.0).unwrap_or(usize::MAX);
        let unread = tables.log.get(read..).unwrap_or_default();
        let page = unread.iter().zip(after.0.saturating_add(1)..).take(limit);
        let logged = page.map(|(event, position)| LoggedEvent {
            position: Position(position),
            event: event.clone(),
        });
        Ok(logged.collect())
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let tables = self.tables();
        let rows = tables.writes.values().rev().map(|row| &row.write);
        let older = rows.filter(|write| before.is_none_or(|before| write.id < before));
        Ok(older.take(limit).cloned().collect())
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        Ok(Position(self.tables().log.len() as u64))
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let tables = self.tables();
        let due = tables
            .writes()
            .filter_map(|write| Some((DueCursor::of(write)?, write)));
        let mut due: Vec<_> = due
            .filter(|(cursor, _)| cursor.at <= until && Some(*cursor) > after)
            .collect();
        due.sort_by_key(|(cursor, _)| *cursor);
        let writes = due.into_iter().take(limit).map(|(_, write)| write.clone());
        Ok(writes.collect())
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let (tables, now) = (self.tables(), self.timer.tick());
        let mut backlog = Backlog::default();
        for row in tables.writes.values() {
            if row.lease_ends.is_some() {
                backlog.intents += 1;
                let age = now.0.saturating_sub(row.open_since.0);
                backlog.oldest_intent = backlog.oldest_intent.max(Some(age));
            }
            if row.write.is_open() {
                backlog.open += 1;
                let sent = row.write.state == WriteState::Sent;
                let requested = row.write.requested;
                let is_recent = requested.is_none_or(|r| recent_times.contains(&r.time));
                backlog.unconfirmed += u64::from(sent && !is_recent);
            }
        }
        Ok(backlog)
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        Ok(self.tables().records.get(scope).cloned())
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let mut tables = self.tables();
        let expired = tables.records.values().filter(|r| r.expires_at <= now);
        let scopes: Vec<_> = expired.map(|r| r.scope.clone()).take(limit).collect();
        let ended = tables.writes().filter(|write| {
            let ended = write.ended_at().is_some_and(|at| at < ended_before);
            ended && write.next_check_at.is_none()
        });
        let ids: Vec<_> = ended.map(|write| write.id).take(limit).collect();
        tables.records.retain(|scope, _| !scopes.contains(scope));
        tables.writes.retain(|id, _| !ids.contains(id));
        Ok(scopes.len() + ids.len())
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let tables = self.tables();
        let rows = tables.locks.iter().filter(|(id, _)| Some(**id) > after);
        Ok(rows.take(limit).map(|(_, row)| row.lock.clone()).collect())
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let mut tables = self.tables();
        // All events are applied to copies first, so that a bad event leaves no trace.
        let mut changed: BTreeMap<LockId, LockRow> = BTreeMap::new();
        for event in &events {
            let row = changed.remove(&event.lock);
            let row = row.or_else(|| tables.locks.get(&event.lock).cloned());
            let row = append(row, event).map_err(|why| ImportError::NotAStream {
                lock: event.lock,
                at: event.version,
                why,
            })?;
            changed.insert(event.lock, row);
        }
        for (id, mut row) in changed {
            row.revision = row.revision.next();
            tables.locks.insert(id, row);
        }
        tables.log.extend(events);
        Ok(())
    }
}

fn append(row: Option<LockRow>, event: &RecordedEvent) -> Result<LockRow, FoldError> {
    let mut row = match row {
        Some(mut row) => {
            row.lock.apply(event)?;
            row
        }
        None => LockRow {
            lock: Lock::create(event)?,
            revision: Revision(0),
            shadow_version: None,
            events: Vec::new(),
        },
    };
    row.events.push(event.clone());
    Ok(row)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timer = Arc::new(keywright_adapters::time::TokioTimer::default());
    let repo = MapLockRepo::new(timer);
    let lock = LockId::new(123)?;
    repo.import(vec![keywright_testkit::samples::created(lock)])
        .await?;
    let snapshot = repo.load(lock).await?.expect("it was imported");
    println!("lock {lock} has version {}", snapshot.lock.version);
    Ok(())
}

#[cfg(test)]
mod tests {
    use keywright_testkit::lock_repo::StoreFixture;
    use keywright_testkit::{ManualTimer, lock_repo_cases};

    use super::*;

    async fn fixture() -> StoreFixture {
        let timer = ManualTimer::default();
        let repo = MapLockRepo::new(Arc::new(timer.clone()));
        // A store that is durable has `StoreFixture::new` with a function that opens it again.
        StoreFixture::volatile(Arc::new(repo), move |span| timer.advance(span))
    }

    lock_repo_cases!(volatile fixture);

    #[test]
    fn prints_the_version_of_a_lock() {
        main().expect("the example runs");
    }
}
