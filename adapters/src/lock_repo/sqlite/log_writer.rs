//! The writer of the log. A transaction appends one row with all saves of a batch to the log, and applies some of the oldest changes
//! to the tables.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{
    Intent, LockId, LockSnapshot, Position, RecordedEvent, Save, Tick, Timestamp, Write, WriteId,
    WriteState,
};
use keywright_domain::ports::{ImportError, RepoError, Timer};
use keywright_sqlite::{FileError, WriterState};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tracing::error;

use super::log_entry::{LogEntry, claim_text, read_entries};
use super::memory::Memory;
use super::other_processes::ProcessLock;
use super::statement::{self, execute, unavailable};
use super::tail::{Change, LockChanges, Tail, next_snapshot};
use super::{idempotency_rows, lock_rows, write_rows};
use crate::lock_repo::lock_row::LockRow;
use crate::lock_repo::row_mapping::{self, StoredWrite, to_optional_sql_integer, to_sql_integer};

/// How long a change stays in memory, so that later ones of its lock are applied together with it.
const TIME_IN_MEMORY: Duration = Duration::from_millis(400);

/// The minimum time between two marks of the log.
const MARK_INTERVAL: Duration = Duration::from_millis(50);

/// The maximum number of table rows that a tick applies, so that a save waits at most about 5 ms for it.
const MAX_ROWS_PER_TICK: usize = 512;

/// How many table rows a transaction applies for each one that its saves will become, so that the tail shrinks under load, too.
const ROWS_APPLIED_PER_ROW: usize = 2;

pub(super) type SharedMemory = Arc<Mutex<Memory>>;

pub(super) fn lock_memory(memory: &SharedMemory) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the writer thread.
pub(super) struct LogWriter {
    memory: SharedMemory,
    process_lock: Arc<ProcessLock>,
    timer: Arc<dyn Timer>,
    /// Identifies this process in the file.
    id: [u8; 16],
    /// The connection's `data_version` at the last transaction. It changes if another connection commits.
    data_version: i64,
    next_position: u64,
    /// The first positions of the rows of the table `log`.
    log_rows: VecDeque<u64>,
    /// Times with the value of `next_position` at that time.
    marks: VecDeque<(Tick, u64)>,
    /// Locks whose changes cannot be applied.
    set_aside: HashSet<LockId>,
    /// The lock whose changes could not be applied the last time that this failed.
    last_failed: Option<LockId>,
    batch: Batch,
}

/// The current transaction. What it changes takes effect if it is committed.
#[derive(Default)]
struct Batch {
    first_position: u64,
    next_position: u64,
    /// The entries of the log, separated by commas.
    entries: String,
    changes: Vec<Change>,
    snapshots: HashMap<LockId, Arc<LockSnapshot>>,
    /// Table rows that the changes will become.
    table_rows: usize,
    applied: HashSet<LockId>,
    /// How many of the oldest rows of the log are deleted.
    deleted_log_rows: usize,
    /// Another process has written before. The value is the new number of takeovers.
    takeover: Option<Option<u64>>,
    /// The position of the last event that was imported.
    imported: Option<Position>,
}

impl LogWriter {
    pub(super) fn new(
        memory: SharedMemory,
        process_lock: Arc<ProcessLock>,
        timer: Arc<dyn Timer>,
    ) -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self {
            memory,
            process_lock,
            timer,
            id,
            data_version: -1,
            next_position: 1,
            log_rows: VecDeque::new(),
            marks: VecDeque::new(),
            set_aside: HashSet::new(),
            last_failed: None,
            batch: Batch::default(),
        })
    }

    /// Applies what an earlier process has left in the log, if no other process has the file open.
    pub(super) fn recover(&mut self, conn: &mut Connection) -> Result<(), FileError> {
        let rows: i64 = conn.query_row("SELECT count(*) FROM log", [], |row| row.get(0))?;
        if rows == 0 {
            return Ok(());
        }
        let transaction = Transaction::new(conn, TransactionBehavior::Immediate)?;
        let begun = self.begin(&transaction);
        let applied = begun.and_then(|()| self.before_commit(&transaction));
        let committed = match applied {
            Ok(()) => transaction.commit().map_err(FileError::from),
            Err(reason) => Err(FileError::Contents(reason)),
        };
        self.ended(committed.is_ok());
        committed
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
                position: Position(self.batch.next_position),
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
                position: Position(self.batch.next_position),
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
        batch.table_rows += change.table_rows();
        let snapshot = change.snapshot.clone();
        batch.snapshots.insert(snapshot.lock.id, snapshot);
        batch.next_position += Change::positions(&change.events);
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
            let position = Position(self.batch.next_position);
            self.batch.next_position += 1;
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

    /// To be called in regular intervals: applies old changes, also while nothing is saved.
    pub(super) fn tick(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        let applied = self.apply(transaction, self.first_recent(), MAX_ROWS_PER_TICK);
        applied.map_err(|e| e.to_string())
    }

    fn apply_all(&mut self, conn: &Connection) -> Result<(), RepoError> {
        self.apply(conn, Position(u64::MAX), usize::MAX)
    }

    /// The position of the first change that may be followed by others of its lock soon.
    fn first_recent(&self) -> Position {
        let now = self.timer.tick();
        let is_old = |(time, _): &&(Tick, u64)| time.after(TIME_IN_MEMORY) <= now;
        let oldest = self.marks.front().filter(is_old);
        oldest.map_or(Position::START, |(_, position)| Position(*position))
    }

    fn mark(&mut self) {
        let (now, next) = (self.timer.tick(), self.next_position);
        let is_due = |(last, _): &(Tick, u64)| last.after(MARK_INTERVAL) <= now;
        if self.marks.back().is_none_or(is_due) {
            self.marks.push_back((now, next));
        }
        // The first mark stays the last one that is old enough.
        while let Some((second, _)) = self.marks.get(1)
            && second.after(TIME_IN_MEMORY) <= now
        {
            self.marks.pop_front();
        }
    }

    /// Applies the changes of the locks that have changes before this position, the oldest first, until these are `max_rows` table rows.
    /// The last lock may exceed that.
    fn apply(
        &mut self,
        conn: &Connection,
        before: Position,
        max_rows: usize,
    ) -> Result<(), RepoError> {
        let mut rows = 0;
        let due: Vec<Arc<LockChanges>> = {
            let memory = lock_memory(&self.memory);
            let changed = memory.tail.oldest_first();
            let changed = changed.filter(|(_, changes)| !self.is_applied(changes));
            let due = changed.take_while(|(first, changes)| {
                let is_due = *first < before && rows < max_rows;
                rows += changes.table_rows();
                is_due
            });
            due.map(|(_, changes)| changes.clone()).collect()
        };
        for changes in due {
            let lock = changes.snapshot.lock.id;
            if let Err(reason) = apply_changes(conn, &changes) {
                // A failure for the second time has its cause in the changes. Others must not wait for them for ever.
                if self.last_failed.replace(lock) == Some(lock) {
                    error!(%lock, %reason, "changes of a lock cannot be applied to its tables; they stay in the log");
                    self.set_aside.insert(lock);
                }
                return Err(reason);
            }
            self.batch.applied.insert(lock);
        }
        Ok(())
    }

    fn is_applied(&self, changes: &LockChanges) -> bool {
        let lock = changes.snapshot.lock.id;
        self.batch.applied.contains(&lock) || self.set_aside.contains(&lock)
    }

    /// Deletes the rows of the log whose changes are all in the tables.
    fn delete_applied(&mut self, conn: &Connection) -> Result<(), RepoError> {
        // The changes of this transaction are in a row of their own.
        let end = self.batch.first_position;
        let oldest = {
            let memory = lock_memory(&self.memory);
            let mut changed = memory.tail.oldest_first();
            let kept = |(_, changes): &(Position, &Arc<LockChanges>)| {
                !self.batch.applied.contains(&changes.snapshot.lock.id)
            };
            changed.find(kept).map_or(end, |(first, _)| first.0)
        };
        let ends = self.log_rows.iter().skip(1).copied().chain([end]);
        let deleted = ends
            .take_while(|end| *end <= oldest)
            .count()
            .min(self.log_rows.len());
        if deleted > 0 {
            self.batch.deleted_log_rows = deleted;
            let kept = to_sql_integer(self.log_rows.get(deleted).copied().unwrap_or(end))?;
            execute(conn, "DELETE FROM log WHERE position < ?1", [kept])?;
        }
        Ok(())
    }

    /// Applies and deletes what another process has left in the log, and becomes the process that writes.
    fn become_writer(&mut self, conn: &Connection) -> Result<(), RepoError> {
        lock_memory(&self.memory).clear();
        self.log_rows.clear();
        self.marks.clear();
        self.set_aside.clear();
        let (tail, end) = read_tail(conn, None)?;
        for (_, changes) in tail.oldest_first() {
            apply_changes(conn, changes)?;
        }
        execute(conn, "DELETE FROM log", [])?;
        execute(conn, "UPDATE log_writer SET process = ?1", [self.id])?;
        let last = lock_rows::last_position(conn)?;
        lock_memory(&self.memory).tail.last_event = Some(last);
        self.next_position = end.max(last.0 + 1);
        self.batch.takeover = Some(None);
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
        self.batch = Batch::default();
        let text = |e: RepoError| e.to_string();
        let mut statement = statement::prepare(transaction, "PRAGMA data_version").map_err(text)?;
        let data_version: i64 = statement
            .query_row([], |row| row.get(0))
            .map_err(|e| e.to_string())?;
        let takeovers = self.process_lock.takeovers();
        let is_complete = lock_memory(&self.memory).is_complete(takeovers);
        if data_version != self.data_version || !is_complete {
            match self.is_writer(transaction).map_err(text)? {
                true => lock_memory(&self.memory).set_complete(takeovers),
                false => self.become_writer(transaction).map_err(text)?,
            }
        }
        self.data_version = data_version;
        self.mark();
        self.batch.first_position = self.next_position;
        self.batch.next_position = self.next_position;
        Ok(())
    }

    fn before_commit(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        let text = |e: RepoError| e.to_string();
        if !self.batch.entries.is_empty() {
            let first = to_sql_integer(self.batch.first_position).map_err(text)?;
            let entries = format!("[{}]", self.batch.entries);
            let row = params![first, entries];
            execute(transaction, "INSERT INTO log VALUES (?1, ?2)", row).map_err(text)?;
            let max_rows = ROWS_APPLIED_PER_ROW * self.batch.table_rows;
            let applied = self.apply(transaction, self.first_recent(), max_rows);
            applied.map_err(text)?;
        }
        if !self.batch.applied.is_empty() {
            self.delete_applied(transaction).map_err(text)?;
        }
        if let Some(takeovers) = &mut self.batch.takeover {
            let announced = self.process_lock.announce_takeover();
            *takeovers = announced.map_err(|e| format!("other processes cannot be told: {e}"))?;
        }
        Ok(())
    }

    fn ended(&mut self, committed: bool) {
        let batch = std::mem::take(&mut self.batch);
        let mut memory = lock_memory(&self.memory);
        if !committed {
            // The next transaction finds out whether this process has written last.
            memory.set_complete(None);
            return;
        }
        self.next_position = batch.next_position;
        self.log_rows.drain(..batch.deleted_log_rows);
        if !batch.entries.is_empty() {
            self.log_rows.push_back(batch.first_position);
        }
        if let Some(takeovers) = batch.takeover {
            memory.set_complete(takeovers);
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

    fn close(&mut self, conn: &mut Connection) {
        if lock_memory(&self.memory).tail.is_empty() {
            return;
        }
        // Another process, or the next one, applies what this one cannot.
        let Ok(transaction) = Transaction::new(conn, TransactionBehavior::Immediate) else {
            return;
        };
        let begun = self.begin(&transaction);
        let applied = begun
            .and_then(|()| self.apply_all(&transaction).map_err(|e| e.to_string()))
            .and_then(|()| self.before_commit(&transaction));
        if applied.is_ok() {
            let _ = transaction.commit();
        }
    }
}

/// Checks that a save can be applied to the tables, before it is answered.
pub(super) fn check_numbers(save: &Save) -> Result<(), RepoError> {
    for write in &save.writes {
        StoredWrite::of(write)?;
    }
    for event in &save.events {
        to_sql_integer(event.version.0)?;
    }
    to_sql_integer(save.lock.get())?;
    to_optional_sql_integer(save.shadow_version.map(|version| version.0))?;
    if let Some(record) = &save.idempotency {
        idempotency_rows::check_numbers(record)?;
    }
    Ok(())
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

/// Reads the changes that are in the log and not in the tables, and the first position behind the log. `lock`: only those of this lock.
/// `conn` is in a transaction.
pub(super) fn read_tail(conn: &Connection, lock: Option<LockId>) -> Result<(Tail, u64), RepoError> {
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
        end = u64::try_from(first).map_err(|_| corrupt())?;
        for entry in entries {
            let position = Position(end);
            end += Change::positions(&entry.events);
            if lock.is_none_or(|lock| lock == entry.lock) {
                let change = read_change(conn, &tail, entry, position, corrupt)?;
                change.into_iter().for_each(|change| tail.add(change));
            }
        }
    }
    Ok((tail, end))
}

/// The change of an entry. `None`: the tables have it already, because a row of the log stays until they have all of its entries.
fn read_change(
    conn: &Connection,
    tail: &Tail,
    entry: LogEntry,
    position: Position,
    corrupt: impl Fn() -> RepoError,
) -> Result<Option<Change>, RepoError> {
    let snapshot = match tail.lock(entry.lock) {
        Some(changes) => changes.snapshot.clone(),
        None => {
            let found = lock_rows::snapshot(conn, entry.lock)?;
            Arc::new(found.ok_or_else(&corrupt)?)
        }
    };
    if entry.revision < snapshot.revision {
        return Ok(None);
    }
    if entry.revision > snapshot.revision {
        return Err(corrupt());
    }
    let mut lock = snapshot.lock.clone();
    for event in &entry.events {
        lock.apply(event).map_err(|_| corrupt())?;
    }
    let next = next_snapshot(&snapshot, Some(lock), entry.shadow_version, &entry.writes);
    Ok(Some(Change {
        snapshot: Arc::new(next),
        position,
        events: entry.events,
        writes: entry.writes,
        record: entry.record,
    }))
}
