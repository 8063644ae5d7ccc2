//! Changes that are in the log, and not yet in the tables.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use keywright_domain::model::{
    IdempotencyRecord, IdempotencyScope, Intent, Lock, LockId, LockSnapshot, LockVersion,
    LoggedEvent, Position, RecordedEvent, ShadowVersion, Timestamp, Write, WriteId,
};

/// A saved change of a lock.
#[derive(Debug)]
pub(super) struct Change {
    /// The lock after the change.
    pub(super) snapshot: Arc<LockSnapshot>,
    /// The position of its first event; those of the others follow.
    pub(super) position: Position,
    pub(super) events: Vec<RecordedEvent>,
    pub(super) writes: Vec<Write>,
    pub(super) record: Option<Box<IdempotencyRecord>>,
}

impl Change {
    /// The number of table rows that it becomes if it is applied alone.
    pub(super) fn table_rows(&self) -> usize {
        1 + self.events.len() + self.writes.len() + usize::from(self.record.is_some())
    }

    /// How many positions it takes: one for each event, and at least one.
    pub(super) fn positions(events: &[RecordedEvent]) -> u64 {
        events.len().max(1) as u64
    }
}

/// The lock after a save: `lock` replaces the one of the snapshot, and `writes` are inserted or replaced.
pub(super) fn next_snapshot(
    current: &LockSnapshot,
    lock: Option<Lock>,
    shadow_version: Option<ShadowVersion>,
    writes: &[Write],
) -> LockSnapshot {
    let known = current.unfinished.iter().chain(&current.uncleared);
    let unchanged = known.filter(|known| writes.iter().all(|write| write.id != known.id));
    let live = unchanged.chain(writes).filter(|write| write.is_live());
    LockSnapshot::new(
        lock.unwrap_or_else(|| current.lock.clone()),
        current.revision.next(),
        shadow_version.or(current.shadow_version),
        live.cloned().collect(),
    )
}

/// All changes of a lock that the tables do not have yet.
#[derive(Clone, Debug)]
pub(super) struct LockChanges {
    pub(super) snapshot: Arc<LockSnapshot>,
    /// The position of the first change.
    first: Position,
    pub(super) events: Vec<LoggedEvent>,
    /// The last state of each write.
    pub(super) writes: Vec<Write>,
    pub(super) records: Vec<IdempotencyRecord>,
}

impl LockChanges {
    /// The number of table rows that they become.
    pub(super) fn table_rows(&self) -> usize {
        1 + self.events.len() + self.writes.len() + self.records.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Tail {
    locks: HashMap<LockId, Arc<LockChanges>>,
    /// The locks by the position of their first change. Outdated entries have another position than the lock's changes.
    oldest_first: VecDeque<(Position, LockId)>,
    events: BTreeMap<Position, LockId>,
    writes: HashMap<WriteId, LockId>,
    /// The position of the last event of the store. `None`: the tail is read in the same transaction as the tables.
    pub(super) last_event: Option<Position>,
}

impl Tail {
    pub(super) fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    pub(super) fn add(&mut self, change: Change) {
        let lock = change.snapshot.lock.id;
        let positions = change.position.0..;
        for (event, position) in change.events.iter().zip(positions.clone()) {
            debug_assert_eq!(event.lock, lock);
            self.events.insert(Position(position), lock);
            if self.last_event.is_some() {
                self.last_event = Some(Position(position));
            }
        }
        self.writes
            .extend(change.writes.iter().map(|write| (write.id, lock)));
        let known = self.locks.entry(lock).or_insert_with(|| {
            self.oldest_first.push_back((change.position, lock));
            Arc::new(LockChanges {
                snapshot: change.snapshot.clone(),
                first: change.position,
                events: Vec::new(),
                writes: Vec::new(),
                records: Vec::new(),
            })
        });
        let changes = Arc::make_mut(known);
        changes.snapshot = change.snapshot;
        let logged = change.events.into_iter().zip(positions);
        changes
            .events
            .extend(logged.map(|(event, position)| LoggedEvent {
                position: Position(position),
                event,
            }));
        for write in change.writes {
            match changes.writes.iter_mut().find(|known| known.id == write.id) {
                Some(known) => *known = write,
                None => changes.writes.push(write),
            }
        }
        if let Some(record) = change.record {
            changes.records.retain(|known| known.scope != record.scope);
            changes.records.push(*record);
        }
    }

    /// Removes the changes of a lock, which the tables have now.
    pub(super) fn remove(&mut self, lock: LockId) {
        let Some(changes) = self.locks.remove(&lock) else {
            return;
        };
        for logged in &changes.events {
            self.events.remove(&logged.position);
        }
        for write in &changes.writes {
            self.writes.remove(&write.id);
        }
        while let Some((position, lock)) = self.oldest_first.front() {
            if self.is_first_change(*position, *lock) {
                break;
            }
            self.oldest_first.pop_front();
        }
    }

    fn is_first_change(&self, position: Position, lock: LockId) -> bool {
        let changes = self.locks.get(&lock);
        changes.is_some_and(|changes| changes.first == position)
    }

    /// The locks with changes, and the positions of their first changes, those with the oldest ones first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (Position, &Arc<LockChanges>)> {
        let valid = self.oldest_first.iter();
        valid.filter_map(|(position, lock)| {
            let changes = self.locks.get(lock)?;
            (changes.first == *position).then_some((*position, changes))
        })
    }

    pub(super) fn lock(&self, lock: LockId) -> Option<&LockChanges> {
        self.locks.get(&lock).map(|changes| &**changes)
    }

    pub(super) fn write(&self, id: WriteId) -> Option<&Write> {
        let changes = self.locks.get(self.writes.get(&id)?)?;
        changes.writes.iter().find(|write| write.id == id)
    }

    pub(super) fn record(&self, scope: &IdempotencyScope) -> Option<&IdempotencyRecord> {
        let changes = self.locks.get(&scope.lock)?;
        changes.records.iter().find(|record| record.scope == *scope)
    }

    /// Events of a lock from version `first` on.
    pub(super) fn events(&self, lock: LockId, first: LockVersion) -> Vec<RecordedEvent> {
        let changes = self.locks.get(&lock);
        let events = changes.into_iter().flat_map(|changes| &changes.events);
        let wanted = events.filter(|logged| logged.event.version >= first);
        wanted.map(|logged| logged.event.clone()).collect()
    }

    /// At most `limit` events after this position, in the order of their positions, and the position up to which the tables may be read.
    /// Of two events that are saved later, the tables may get the second one first.
    pub(super) fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> (Vec<LoggedEvent>, Position) {
        let behind = self.events.range(Position(after.0.saturating_add(1))..);
        let logged = behind.take(limit).filter_map(|(position, lock)| {
            let events = &self.locks.get(lock)?.events;
            let index = events.binary_search_by_key(position, |logged| logged.position);
            Some(events[index.ok()?].clone())
        });
        let last = self.last_event.unwrap_or(Position(u64::MAX));
        (logged.collect(), last)
    }

    /// The position of the last event of the store, and that of the tail.
    pub(super) fn last_positions(&self) -> (Option<Position>, Option<Position>) {
        let last = self.events.last_key_value();
        (self.last_event, last.map(|(position, _)| *position))
    }

    /// The writes that `wanted` selects, and the ids of all writes.
    pub(super) fn writes(&self, wanted: impl Fn(&Write) -> bool) -> ChangedWrites {
        let writes = self.locks.values().flat_map(|changes| &changes.writes);
        ChangedWrites {
            ids: self.writes.keys().copied().collect(),
            selected: writes.filter(|write| wanted(write)).cloned().collect(),
        }
    }

    /// The open intents of the writes.
    pub(super) fn open_intents(&self) -> HashMap<WriteId, Option<Intent>> {
        let writes = self.locks.values().flat_map(|changes| &changes.writes);
        writes
            .map(|write| (write.id, write.intent().copied()))
            .collect()
    }

    /// Whether one of the writes or records would be purged.
    pub(super) fn is_purged(&self, now: Timestamp, ended_before: Timestamp) -> bool {
        let ended = |write: &Write| write.ended_at().is_some_and(|at| at < ended_before);
        self.locks.values().any(|changes| {
            changes.writes.iter().any(ended)
                || changes
                    .records
                    .iter()
                    .any(|record| record.expires_at <= now)
        })
    }

    /// The locks with changes, with an id behind this one.
    pub(super) fn locks_after(&self, after: Option<LockId>) -> HashMap<LockId, Arc<LockSnapshot>> {
        let changed = self.locks.iter();
        let behind = changed.filter(|(id, _)| after.is_none_or(|after| **id > after));
        behind
            .map(|(id, changes)| (*id, changes.snapshot.clone()))
            .collect()
    }
}

/// Writes of a tail.
pub(super) struct ChangedWrites {
    /// The ids of all writes of the tail. Their rows in the tables are outdated.
    pub(super) ids: HashSet<WriteId>,
    pub(super) selected: Vec<Write>,
}

impl ChangedWrites {
    /// Adds the selected writes to rows that are not outdated, sorts, and keeps the first `limit` writes.
    pub(super) fn merge<K: Ord>(
        self,
        mut rows: Vec<Write>,
        limit: usize,
        key: impl Fn(&Write) -> K,
    ) -> Vec<Write> {
        rows.extend(self.selected);
        rows.sort_by_key(key);
        rows.truncate(limit);
        rows
    }
}
