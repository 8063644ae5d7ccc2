//! A store in memory. Its content is lost when the process ends.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockSnapshot,
    LockVersion, LoggedEvent, Position, RecordedEvent, Requested, Save, Tick, Timestamp, WorkerId,
    Write, WriteId, WriteState,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};

use super::lock_row::LockRow;

/// Stores locks, their events and their writes. Clones share the store.
#[derive(Clone)]
pub struct InMemoryLockRepo {
    store: Arc<Mutex<Store>>,
    timer: Arc<dyn Timer>,
}

#[derive(Clone, Default)]
struct Store {
    locks: HashMap<LockId, StoredLock>,
    writes: HashMap<WriteId, StoredWrite>,
    /// Prepared writes, ordered by the end of their lease.
    leases: BTreeSet<(Tick, WriteId)>,
    /// Writes with a `next_check_at`, ordered by it.
    due: BTreeSet<DueCursor>,
    records: HashMap<IdempotencyScope, IdempotencyRecord>,
    /// All events by their positions, which begin at 1.
    log: Vec<(LockId, LockVersion)>,
}

#[derive(Clone)]
struct StoredLock {
    row: LockRow,
    events: Vec<RecordedEvent>,
    /// The ids of the lock's live writes.
    live_ids: Vec<WriteId>,
}

#[derive(Clone)]
struct StoredWrite {
    write: Write,
    /// The end of the lease of a prepared write.
    lease_until: Option<Tick>,
    /// When the write was first saved; the age of an intent is counted from here.
    open_since: Tick,
}

impl InMemoryLockRepo {
    /// An empty store, whose leases are measured with `timer`.
    pub fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            store: Arc::default(),
            timer,
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LockRepo for InMemoryLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let store = self.store();
        Ok(store.locks.get(&lock).map(|stored| store.snapshot(stored)))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let now = self.timer.tick();
        let mut store = self.store();
        let Some(stored) = store
            .locks
            .get_mut(&save.lock)
            .filter(|stored| stored.row.revision == save.revision)
        else {
            return Err(RepoError::Stale);
        };
        let row = &mut stored.row;
        if let Some(folded) = save.folded {
            row.lock = *folded;
        }
        row.revision = row.revision.next();
        row.shadow_version = save.shadow_version.or(row.shadow_version);
        let saved = save.events.iter().map(|event| (event.lock, event.version));
        let saved: Vec<_> = saved.collect();
        stored.events.extend(save.events);
        for write in &save.writes {
            stored.update_live(write);
        }
        store.log.extend(saved);
        if let Some(record) = save.idempotency {
            store.records.insert(record.scope.clone(), *record);
        }
        for write in save.writes {
            store.put(write, now);
        }
        Ok(())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let now = self.timer.tick();
        let mut store = self.store();
        let expired_lease = store.leases.first().filter(|(until, _)| *until <= now);
        let expired = expired_lease.and_then(|(_, id)| store.writes.get(id));
        let Some(mut claimed) = expired.map(|row| row.write.clone()) else {
            return Ok(None);
        };
        if let Some(intent) = claimed.intent() {
            claimed.state = WriteState::Prepared(intent.taken_over(worker, lease));
        }
        store.put(claimed.clone(), now);
        if let Some(stored) = store.locks.get_mut(&claimed.lock) {
            stored.row.revision = stored.row.revision.next();
        }
        Ok(Some(claimed))
    }
}

#[async_trait]
impl LockHistory for InMemoryLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        Ok(self.store().writes.get(&id).map(|row| row.write.clone()))
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let store = self.store();
        let events = store
            .locks
            .get(&lock)
            .map_or(&[][..], |stored| &stored.events);
        Ok(events
            .iter()
            .filter(|e| e.version >= first)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let store = self.store();
        let read = usize::try_from(after.0).unwrap_or(usize::MAX);
        let unread = store.log.get(read..).unwrap_or_default();
        let page = unread.iter().zip(after.0.saturating_add(1)..).take(limit);
        let logged = page.filter_map(|((lock, version), position)| {
            let events = &store.locks.get(lock)?.events;
            let index = events.binary_search_by_key(version, |e| e.version).ok()?;
            Some(LoggedEvent {
                position: Position(position),
                event: events[index].clone(),
            })
        });
        Ok(logged.collect())
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let store = self.store();
        let mut ids: Vec<WriteId> = store.writes.keys().copied().collect();
        ids.retain(|id| before.is_none_or(|before| *id < before));
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let rows = ids.iter().take(limit).filter_map(|id| store.writes.get(id));
        Ok(rows.map(|row| row.write.clone()).collect())
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        Ok(Position(self.store().log.len() as u64))
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let store = self.store();
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let due = store.due.range((first, Bound::Unbounded));
        let due = due.take_while(|due| due.at <= until).take(limit);
        let rows = due.filter_map(|due| store.writes.get(&due.id));
        Ok(rows.map(|row| row.write.clone()).collect())
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let store = self.store();
        let mut backlog = Backlog::default();
        let now = self.timer.tick();
        let row = |id: &WriteId| store.writes.get(id);
        for row in store.leases.iter().filter_map(|(_, id)| row(id)) {
            backlog.intents += 1;
            let age = now.0.saturating_sub(row.open_since.0);
            backlog.oldest_intent = backlog.oldest_intent.max(Some(age));
        }
        for row in store.due.iter().filter_map(|due| row(&due.id)) {
            let write = &row.write;
            if write.is_open() {
                backlog.open += 1;
                let sent = write.state == WriteState::Sent;
                let recent = |r: &Requested| recent_times.contains(&r.time);
                let recent = write.requested.as_ref().is_none_or(recent);
                backlog.unconfirmed += u64::from(sent && !recent);
            }
        }
        Ok(backlog)
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        Ok(self.store().records.get(scope).cloned())
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let mut store = self.store();
        let expired = store
            .records
            .values()
            .filter(|record| record.expires_at <= now);
        let records: Vec<IdempotencyScope> = expired.map(|r| r.scope.clone()).take(limit).collect();
        let ended = store.writes.values().map(|row| &row.write).filter(|w| {
            let ended_in_time = w.ended_at().is_some_and(|at| at < ended_before);
            ended_in_time && w.next_check_at.is_none()
        });
        let writes: Vec<WriteId> = ended.map(|w| w.id).take(limit).collect();
        for scope in &records {
            store.records.remove(scope);
        }
        for id in &writes {
            store.writes.remove(id);
        }
        Ok(records.len() + writes.len())
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let store = self.store();
        let mut locks: Vec<&Lock> = store.locks.values().map(|l| &l.row.lock).collect();
        locks.retain(|lock| after.is_none_or(|after| lock.id > after));
        locks.sort_unstable_by_key(|lock| lock.id);
        Ok(locks.into_iter().take(limit).cloned().collect())
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let mut store = self.store();
        let mut changed: HashMap<LockId, StoredLock> = HashMap::new();
        let mut imported = Vec::with_capacity(events.len());
        for mut event in events {
            let known = changed.remove(&event.lock);
            let known = known.or_else(|| store.locks.get(&event.lock).cloned());
            let (row, mut events, live_ids) = match known {
                Some(known) => (Some(known.row), known.events, known.live_ids),
                None => (None, Vec::new(), Vec::new()),
            };
            let row = LockRow::import(row, &mut event)?;
            let lock = event.lock;
            imported.push((lock, event.version));
            events.push(event);
            changed.insert(
                lock,
                StoredLock {
                    row,
                    events,
                    live_ids,
                },
            );
        }
        for (lock, mut stored) in changed {
            stored.row.revision = stored.row.revision.next();
            store.locks.insert(lock, stored);
        }
        store.log.extend(imported);
        Ok(())
    }
}

impl Store {
    /// Inserts or replaces a write. The lease of a prepared write starts now.
    fn put(&mut self, write: Write, now: Tick) {
        let (id, due) = (write.id, DueCursor::of(&write));
        let lease_until = write.intent().map(|intent| now.after(intent.lease));
        let known = self.writes.get(&id).map(|row| row.open_since);
        let stored = StoredWrite {
            write,
            lease_until,
            open_since: known.unwrap_or(now),
        };
        if let Some(old) = self.writes.insert(id, stored) {
            if let Some(until) = old.lease_until {
                self.leases.remove(&(until, id));
            }
            if let Some(due) = DueCursor::of(&old.write) {
                self.due.remove(&due);
            }
        }
        self.leases.extend(lease_until.map(|until| (until, id)));
        self.due.extend(due);
    }

    fn snapshot(&self, stored: &StoredLock) -> LockSnapshot {
        let live = stored.live_ids.iter().filter_map(|id| self.writes.get(id));
        let live = live.map(|row| row.write.clone()).collect();
        stored.row.clone().into_snapshot(live)
    }
}

impl StoredLock {
    fn update_live(&mut self, write: &Write) {
        self.live_ids.retain(|id| *id != write.id);
        if write.is_live() {
            self.live_ids.push(write.id);
        }
    }
}
