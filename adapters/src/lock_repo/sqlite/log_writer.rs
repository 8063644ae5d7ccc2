//! The writer of the log. A transaction appends one row with all saves of a batch to the log, and applies some of the oldest changes
//! to the tables.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keywright_domain::model::{
    Intent, LockId, LockSnapshot, Position, RecordedEvent, Save, Timestamp, Write, WriteId,
    WriteState,
};
use keywright_domain::ports::{ImportError, RepoError};
use keywright_sqlite::WriterState;
use rusqlite::{Connection, Transaction, params};

use super::log_entry::{claim_text, read_entries};
use super::memory::Memory;
use super::other_processes::ProcessLock;
use super::statement::{self, execute, unavailable};
use super::tail::{Change, LockChanges, Tail, next_snapshot};
use super::{idempotency_rows, lock_rows, write_rows};
use crate::lock_repo::lock_row::LockRow;
use crate::lock_repo::row_mapping::{self, to_sql_integer};

/// How many ticks a change stays in memory, so that later ones of its lock are applied together with it.
const TICKS_IN_MEMORY: usize = 4;

/// The maximum number of rows that a transaction without saves applies, so that a save waits at most about 5 ms for it.
const MAX_IDLE_ROWS: usize = 512;

/// How many rows a transaction applies for each row that it adds, so that the tail does not grow under load.
const ROWS_APPLIED_PER_ROW: usize = 2;

pub(super) type SharedMemory = Arc<Mutex<Memory>>;

pub(super) fn lock_memory(memory: &SharedMemory) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the writer thread.
pub(super) struct LogWriter {
    memory: SharedMemory,
    process_lock: Arc<ProcessLock>,
    /// Identifies this process in the file.
    id: [u8; 16],
    /// The connection's `data_version` at the last transaction. It changes if another connection commits.
    data_version: i64,
    next_position: u64,
    /// The first positions of the log's rows.
    rows: VecDeque<u64>,
    batch: Batch,
    /// The value of `next_position` at each of the last ticks.
    ticks: VecDeque<u64>,
    /// Changes before this position are applied.
    due: Position,
    saved_since_tick: bool,
}

/// What the current transaction does to the memory if it is committed.
#[derive(Default)]
struct Batch {
    first_position: u64,
    /// The entries, separated by commas.
    entries: String,
    changes: Vec<Change>,
    snapshots: HashMap<LockId, Arc<LockSnapshot>>,
    /// Rows that the changes will become.
    rows: usize,
    applied: Vec<LockId>,
    /// Another process has written before.
    takes_over: bool,
    /// How many times the writing process has changed with this transaction.
    writer_changes: Option<u64>,
    imported: Option<Position>,
}

impl LogWriter {
    pub(super) fn new(
        memory: SharedMemory,
        process_lock: Arc<ProcessLock>,
    ) -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self {
            memory,
            process_lock,
            id,
            data_version: -1,
            next_position: 1,
            rows: VecDeque::new(),
            batch: Batch::default(),
            ticks: VecDeque::new(),
            due: Position::START,
            saved_since_tick: false,
        })
    }

    /// Applies what an earlier process has left in the log, if no other process has the file open.
    pub(super) fn recover(&mut self, conn: &mut Connection) -> Result<(), String> {
        let transaction = conn.transaction().map_err(|e| e.to_string())?;
        self.begin(&transaction)?;
        self.before_commit(&transaction)?;
        transaction.commit().map_err(|e| e.to_string())?;
        self.ended(true);
        Ok(())
    }

    pub(super) fn save(
        &mut self,
        transaction: &Transaction<'_>,
        save: Save,
        text: &str,
    ) -> Result<(), RepoError> {
        let current = self.current(transaction, save.lock)?;
        let current = current.filter(|known| known.revision == save.revision);
        let current = current.ok_or(RepoError::Stale)?;
        let folded = save.folded.map(|lock| *lock);
        let next = next_snapshot(&current, folded, save.shadow_version, &save.writes);
        self.append(
            text,
            Change {
                snapshot: Arc::new(next),
                position: Position(self.next_position),
                events: save.events,
                writes: save.writes,
                record: save.idempotency,
            },
        );
        Ok(())
    }

    /// Takes over an expired intent. `None`: it is closed, or another process has taken it over.
    pub(super) fn take_over(
        &mut self,
        transaction: &Transaction<'_>,
        id: WriteId,
        expired: Intent,
        intent: Intent,
    ) -> Result<Option<Write>, RepoError> {
        let unchanged = |i: &Intent| (i.worker, i.epoch) == (expired.worker, expired.epoch);
        let found = self.write(transaction, id)?;
        let Some(mut write) = found.filter(|w| w.intent().is_some_and(unchanged)) else {
            return Ok(None);
        };
        let Some(current) = self.current(transaction, write.lock)? else {
            return Err(row_mapping::corrupt("writes", "lock", id.to_string()));
        };
        write.state = WriteState::Prepared(intent);
        let text = claim_text(current.revision, &write);
        let writes = vec![write.clone()];
        let next = next_snapshot(&current, None, None, &writes);
        self.append(
            &text,
            Change {
                snapshot: Arc::new(next),
                position: Position(self.next_position),
                events: Vec::new(),
                writes,
                record: None,
            },
        );
        Ok(Some(write))
    }

    fn append(&mut self, text: &str, change: Change) {
        let batch = &mut self.batch;
        if !batch.entries.is_empty() {
            batch.entries.push(',');
        }
        batch.entries.push_str(text);
        batch.rows += change.events.len() + change.writes.len();
        let snapshot = change.snapshot.clone();
        batch.snapshots.insert(snapshot.lock.id, snapshot);
        self.next_position += Change::positions(&change.events);
        batch.changes.push(change);
    }

    fn current(
        &self,
        conn: &Connection,
        lock: LockId,
    ) -> Result<Option<Arc<LockSnapshot>>, RepoError> {
        if let Some(snapshot) = self.batch.snapshots.get(&lock) {
            return Ok(Some(snapshot.clone()));
        }
        if let Some(snapshot) = lock_memory(&self.memory).lock(lock) {
            return Ok(Some(snapshot.clone()));
        }
        Ok(lock_rows::snapshot(conn, lock)?.map(Arc::new))
    }

    fn write(&self, conn: &Connection, id: WriteId) -> Result<Option<Write>, RepoError> {
        let changes = self.batch.changes.iter().rev();
        let mut writes = changes.flat_map(|change| &change.writes);
        if let Some(write) = writes.find(|write| write.id == id) {
            return Ok(Some(write.clone()));
        }
        if let Some(write) = lock_memory(&self.memory).tail.write(id) {
            return Ok(Some(write.clone()));
        }
        write_rows::write(conn, id)
    }

    /// Imports events into the tables. For a run of events of one lock, the lock's row is read and written once. The transaction must have no
    /// other jobs.
    pub(super) fn import<E: From<ImportError>>(
        &mut self,
        transaction: &Transaction<'_>,
        events: impl Iterator<Item = Result<RecordedEvent, E>>,
    ) -> Result<(), E> {
        self.apply_all(transaction).map_err(ImportError::Store)?;
        let mut current: Option<LockRow> = None;
        let mut last = lock_memory(&self.memory).tail.last_event;
        for event in events {
            let mut event = event?;
            if current
                .as_ref()
                .is_some_and(|row| row.lock.id != event.lock)
            {
                put_imported(transaction, current.take())?;
            }
            let known = match current.take() {
                Some(row) => Some(row),
                None => {
                    let found = lock_rows::lock(transaction, event.lock);
                    found.map_err(ImportError::Store)?.map(|(row, _)| row)
                }
            };
            let row = LockRow::import(known, &mut event)?;
            let position = Position(self.next_position);
            self.next_position += 1;
            last = Some(position);
            lock_rows::append_event(transaction, position, &event).map_err(ImportError::Store)?;
            current = Some(row);
        }
        self.batch.imported = last;
        put_imported(transaction, current)
    }

    /// Deletes old rows. The transaction must have no other jobs.
    pub(super) fn purge(
        &mut self,
        transaction: &Transaction<'_>,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let is_purged = lock_memory(&self.memory).tail.is_purged(now, ended_before);
        if is_purged {
            self.apply_all(transaction)?;
        }
        idempotency_rows::purge(transaction, now, ended_before, limit)
    }

    /// To be called in regular intervals: applies old changes while nothing is saved.
    pub(super) fn tick(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        self.ticks.push_back(self.next_position);
        if self.ticks.len() > TICKS_IN_MEMORY
            && let Some(before) = self.ticks.pop_front()
        {
            self.due = Position(before);
        }
        if std::mem::take(&mut self.saved_since_tick) {
            return Ok(());
        }
        let applied = self.apply(transaction, self.due, MAX_IDLE_ROWS);
        applied.map_err(|e| e.to_string())
    }

    fn apply_all(&mut self, conn: &Connection) -> Result<(), RepoError> {
        self.apply(conn, Position(u64::MAX), usize::MAX)
    }

    /// Applies the changes of the locks that have changes before this position, the oldest first, until these are `max_rows` rows.
    fn apply(
        &mut self,
        conn: &Connection,
        before: Position,
        max_rows: usize,
    ) -> Result<(), RepoError> {
        let mut rows = 0;
        let due: Vec<Arc<LockChanges>> = {
            let memory = lock_memory(&self.memory);
            let due = memory.tail.oldest_first();
            due.take_while(|(first, changes)| {
                let is_due = *first < before && rows < max_rows;
                rows += changes.rows();
                is_due
            })
            .map(|(_, changes)| changes.clone())
            .collect()
        };
        for changes in due {
            apply_changes(conn, &changes)?;
            self.batch.applied.push(changes.snapshot.lock.id);
        }
        Ok(())
    }

    /// Deletes the rows of the log whose changes are all in the tables.
    fn delete_applied(&mut self, conn: &Connection) -> Result<(), RepoError> {
        let oldest = {
            let memory = lock_memory(&self.memory);
            let mut locks = memory.tail.oldest_first();
            // The applied locks are the first ones.
            let rest = locks.nth(self.batch.applied.len());
            rest.map_or(self.batch.first_position, |(first, _)| first.0)
        };
        let mut deleted = false;
        while self.rows.front().is_some_and(|first| *first < oldest)
            && self.rows.get(1).is_none_or(|next| *next <= oldest)
        {
            self.rows.pop_front();
            deleted = true;
        }
        if deleted {
            let kept = self.rows.front().copied().unwrap_or(oldest);
            execute(
                conn,
                "DELETE FROM log WHERE position < ?1",
                [to_sql_integer(kept)?],
            )?;
        }
        Ok(())
    }

    /// Applies and deletes what another process has left in the log, and becomes the process that writes.
    fn become_writer(&mut self, conn: &Connection) -> Result<(), RepoError> {
        lock_memory(&self.memory).clear();
        self.rows.clear();
        self.ticks.clear();
        let (tail, end) = read_tail(conn)?;
        for (_, changes) in tail.oldest_first() {
            apply_changes(conn, changes)?;
        }
        execute(conn, "DELETE FROM log", [])?;
        execute(conn, "UPDATE log_writer SET process = ?1", [self.id])?;
        let last = lock_rows::last_position(conn)?;
        lock_memory(&self.memory).tail.last_event = Some(last);
        self.next_position = end.max(last.0 + 1);
        self.batch.takes_over = true;
        Ok(())
    }

    fn is_writer(&self, conn: &Connection) -> Result<bool, RepoError> {
        let mut statement = statement::prepare(conn, "SELECT process FROM log_writer")?;
        let process: Vec<u8> = statement
            .query_row([], |row| row.get(0))
            .map_err(unavailable)?;
        Ok(process == self.id)
    }
}

impl WriterState for LogWriter {
    fn begin(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        self.batch.first_position = self.next_position;
        let text = |e: RepoError| e.to_string();
        let mut statement = statement::prepare(transaction, "PRAGMA data_version").map_err(text)?;
        let data_version: i64 = statement
            .query_row([], |row| row.get(0))
            .map_err(|e| e.to_string())?;
        let writer_changes = self.process_lock.writer_changes();
        let is_complete = lock_memory(&self.memory).is_complete(writer_changes);
        if data_version != self.data_version || !is_complete {
            match self.is_writer(transaction).map_err(text)? {
                true => lock_memory(&self.memory).set_complete(writer_changes),
                false => self.become_writer(transaction).map_err(text)?,
            }
        }
        self.data_version = data_version;
        self.batch.first_position = self.next_position;
        Ok(())
    }

    fn before_commit(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        let text = |e: RepoError| e.to_string();
        if !self.batch.entries.is_empty() {
            self.saved_since_tick = true;
            let first = to_sql_integer(self.batch.first_position).map_err(text)?;
            let entries = format!("[{}]", self.batch.entries);
            execute(
                transaction,
                "INSERT INTO log VALUES (?1, ?2)",
                params![first, entries],
            )
            .map_err(text)?;
            self.rows.push_back(self.batch.first_position);
            let max_rows = ROWS_APPLIED_PER_ROW * self.batch.rows;
            self.apply(transaction, self.due, max_rows).map_err(text)?;
        }
        if !self.batch.applied.is_empty() {
            self.delete_applied(transaction).map_err(text)?;
        }
        if self.batch.takes_over {
            // Before the commit, so that no process misses it. It is counted in no other transaction at the same time.
            let announced = self.process_lock.announce_writer();
            self.batch.writer_changes =
                announced.map_err(|e| format!("other processes cannot be told: {e}"))?;
        }
        Ok(())
    }

    fn ended(&mut self, committed: bool) {
        let batch = std::mem::take(&mut self.batch);
        let mut memory = lock_memory(&self.memory);
        if !committed {
            // The next transaction finds out whether this process has written last.
            memory.set_complete(None);
            self.next_position = batch.first_position;
            self.rows.retain(|first| *first < batch.first_position);
            return;
        }
        if batch.takes_over {
            memory.set_complete(batch.writer_changes);
        }
        for lock in batch.applied {
            memory.tail.remove(lock);
        }
        if let Some(last) = batch.imported {
            memory.clear_cache();
            memory.tail.last_event = Some(last);
        }
        for change in batch.changes {
            memory.add(change);
        }
    }

    fn close(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        let is_writer = self.is_writer(transaction).map_err(|e| e.to_string())?;
        if is_writer {
            self.begin(transaction)?;
            self.apply_all(transaction).map_err(|e| e.to_string())?;
            execute(transaction, "DELETE FROM log", []).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// Writes the changes of a lock to the tables.
fn apply_changes(conn: &Connection, changes: &LockChanges) -> Result<(), RepoError> {
    lock_rows::update_lock(conn, &changes.snapshot)?;
    changes
        .events
        .iter()
        .try_for_each(|logged| lock_rows::append_event(conn, logged.position, &logged.event))?;
    changes
        .writes
        .iter()
        .try_for_each(|write| write_rows::put_write(conn, write))?;
    changes
        .records
        .iter()
        .try_for_each(|record| idempotency_rows::upsert_record(conn, record))
}

fn put_imported<E: From<ImportError>>(
    transaction: &Transaction<'_>,
    row: Option<LockRow>,
) -> Result<(), E> {
    if let Some(mut row) = row {
        row.revision = row.revision.next();
        lock_rows::put_lock(transaction, &row).map_err(ImportError::Store)?;
    }
    Ok(())
}

/// Reads the changes that are in the log and not in the tables, and the first position behind the log. `conn` is in a transaction.
pub(super) fn read_tail(conn: &Connection) -> Result<(Tail, u64), RepoError> {
    let mut tail = Tail::default();
    let mut end = 1;
    let mut statement =
        statement::prepare(conn, "SELECT position, entries FROM log ORDER BY position")?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    while let Some(row) = rows.next().map_err(unavailable)? {
        let first: i64 = row.get(0).map_err(unavailable)?;
        let corrupt = || row_mapping::corrupt("log", "entries", first.to_string());
        let text = row.get_ref(1).map_err(unavailable)?.as_str();
        let entries = text.ok().and_then(read_entries).ok_or_else(corrupt)?;
        let mut position = u64::try_from(first).map_err(|_| corrupt())?;
        for entry in entries {
            let positions = Change::positions(&entry.events);
            let snapshot = match tail.lock(entry.lock) {
                Some(changes) => changes.snapshot.clone(),
                None => {
                    let found = lock_rows::snapshot(conn, entry.lock)?;
                    Arc::new(found.ok_or_else(corrupt)?)
                }
            };
            // The tables may already have an entry: the row stays until they have all of its entries.
            if entry.revision >= snapshot.revision {
                if entry.revision != snapshot.revision {
                    return Err(corrupt());
                }
                let mut lock = snapshot.lock.clone();
                for event in &entry.events {
                    lock.apply(event).map_err(|_| corrupt())?;
                }
                let next =
                    next_snapshot(&snapshot, Some(lock), entry.shadow_version, &entry.writes);
                tail.add(Change {
                    snapshot: Arc::new(next),
                    position: Position(position),
                    events: entry.events,
                    writes: entry.writes,
                    record: entry.record,
                });
            }
            position += positions;
        }
        end = position;
    }
    Ok((tail, end))
}
