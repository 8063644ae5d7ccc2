//! Locks in memory: gone with the process, and otherwise a store like any other.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, FoldError, IdempotencyRecord, IdempotencyScope, Intent, Lock, LockId,
    LockSnapshot, LockVersion, RecordedEvent, Requested, Revision, Save, ShadowVersion, Tick,
    Timestamp, WorkerId, Write, WriteId, WriteState,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};

/// Holds locks, their events and their writes. Clones share one store.
#[derive(Clone)]
pub struct InMemoryLockRepo {
    store: Arc<Mutex<Store>>,
    timer: Arc<dyn Timer>,
}

#[derive(Clone, Default)]
struct Store {
    locks: HashMap<LockId, Row>,
    writes: HashMap<WriteId, WriteRow>,
    /// Prepared writes by the ends of their leases.
    leases: BTreeSet<(Tick, WriteId)>,
    /// Writes by their next check.
    due: BTreeSet<DueCursor>,
    records: HashMap<IdempotencyScope, IdempotencyRecord>,
}

#[derive(Clone)]
struct Row {
    lock: Lock,
    revision: Revision,
    shadow_version: Option<ShadowVersion>,
    events: Vec<RecordedEvent>,
    /// The live writes of the lock.
    live: Vec<WriteId>,
}

#[derive(Clone)]
struct WriteRow {
    write: Write,
    /// While the write is prepared.
    lease_until: Option<Tick>,
    /// When it was prepared.
    open_since: Tick,
}

impl InMemoryLockRepo {
    /// An empty store, whose leases are counted by `timer`.
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
        Ok(store.locks.get(&lock).map(|row| store.snapshot(row)))
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let now = self.timer.tick();
        let mut store = self.store();
        let Some(row) = store
            .locks
            .get_mut(&save.lock)
            .filter(|row| row.revision == save.revision)
        else {
            return Err(RepoError::Stale);
        };
        if let Some(folded) = save.folded {
            row.lock = *folded;
        }
        row.events.extend(save.events);
        row.revision = row.revision.next();
        row.shadow_version = save.shadow_version.or(row.shadow_version);
        save.writes.iter().for_each(|write| row.keep(write));
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
        let overdue = store.leases.first().filter(|(until, _)| *until <= now);
        let overdue = overdue.and_then(|(_, id)| store.writes.get(id));
        let Some(mut claimed) = overdue.map(|row| row.write.clone()) else {
            return Ok(None);
        };
        if let Some(intent) = claimed.intent() {
            let epoch = intent.epoch.next();
            claimed.state = WriteState::Prepared(Intent {
                worker,
                epoch,
                lease,
            });
        }
        store.put(claimed.clone(), now);
        if let Some(row) = store.locks.get_mut(&claimed.lock) {
            row.revision = row.revision.next();
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
        let events = store.locks.get(&lock).map_or(&[][..], |row| &row.events);
        Ok(events
            .iter()
            .filter(|e| e.version >= first)
            .take(limit)
            .cloned()
            .collect())
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

    async fn backlog(&self, recently: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
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
                let recent = |r: &Requested| recently.contains(&r.time);
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
            let over = w.ended_at().is_some_and(|at| at < ended_before);
            over && w.next_check_at.is_none()
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
        let mut locks: Vec<&Lock> = store.locks.values().map(|row| &row.lock).collect();
        locks.retain(|lock| after.is_none_or(|after| lock.id > after));
        locks.sort_unstable_by_key(|lock| lock.id);
        Ok(locks.into_iter().take(limit).cloned().collect())
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let mut store = self.store();
        let mut changed: HashMap<LockId, Row> = HashMap::new();
        for event in events {
            let lock = event.lock;
            let refused = |(at, why)| ImportError::NotAStream { lock, at, why };
            let known = changed
                .remove(&lock)
                .or_else(|| store.locks.get(&lock).cloned());
            let row = match known {
                Some(mut row) => {
                    row.append(vec![event]).map_err(refused)?;
                    row
                }
                None => Row::create(event).map_err(refused)?,
            };
            changed.insert(lock, row);
        }
        for (lock, mut row) in changed {
            row.revision = row.revision.next();
            store.locks.insert(lock, row);
        }
        Ok(())
    }
}

impl Store {
    /// Puts a write's row in its place; the lease of a prepared one starts now.
    fn put(&mut self, write: Write, now: Tick) {
        let (id, due) = (write.id, DueCursor::of(&write));
        let lease_until = write.intent().map(|intent| now.after(intent.lease));
        let known = self.writes.get(&id).map(|row| row.open_since);
        let row = WriteRow {
            write,
            lease_until,
            open_since: known.unwrap_or(now),
        };
        if let Some(old) = self.writes.insert(id, row) {
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

    fn snapshot(&self, row: &Row) -> LockSnapshot {
        let live = row.live.iter().filter_map(|id| self.writes.get(id));
        let live = live.map(|row| row.write.clone()).collect();
        LockSnapshot::new(row.lock.clone(), row.revision, row.shadow_version, live)
    }
}

impl Row {
    fn create(first: RecordedEvent) -> Result<Self, (LockVersion, FoldError)> {
        let lock = Lock::create(&first).map_err(|why| (first.version, why))?;
        Ok(Self {
            lock,
            revision: Revision(0),
            shadow_version: None,
            events: vec![first],
            live: Vec::new(),
        })
    }

    /// All of them or none.
    fn append(&mut self, events: Vec<RecordedEvent>) -> Result<(), (LockVersion, FoldError)> {
        let mut lock = self.lock.clone();
        for event in &events {
            lock.apply(event).map_err(|why| (event.version, why))?;
        }
        self.lock = lock;
        self.events.extend(events);
        Ok(())
    }

    fn keep(&mut self, write: &Write) {
        self.live.retain(|id| *id != write.id);
        if write.is_live() {
            self.live.push(write.id);
        }
    }
}
