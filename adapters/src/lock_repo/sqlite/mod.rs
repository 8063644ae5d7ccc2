//! Locks in a SQLite file.
//!
//! A save is appended to a log, with all queued ones in one commit, and is applied to the tables later: several changes of a lock then
//! change each page once. Locks and the changes that the tables do not have yet are in memory ([`memory`]); other reads combine these
//! changes ([`tail`]) with what several readers find in the tables. The log is in the same file, so that another process, and this one
//! after a crash, finds all saves ([`log_writer`]).

mod checkpoint;
mod idempotency_rows;
mod integrity_check;
mod live_write_ids;
mod lock_rows;
mod log_entry;
mod log_writer;
mod memory;
mod other_processes;
mod readers;
mod schema;
mod statement;
mod tail;
mod write_rows;

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockSnapshot,
    LockVersion, LoggedEvent, Position, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};
use keywright_sqlite::{CommitError, FileError, GroupCommit, OpenError, Sharing};
use rusqlite::{Connection, Transaction};

use super::observed_leases::ObservedLeases;
use checkpoint::Checkpoints;
use integrity_check::IntegrityCheck;
use log_writer::{LogWriter, SharedMemory, lock_memory};
use memory::Memory;
use other_processes::ProcessLock;
use readers::Readers;
use tail::Tail;
use tracing::error;

/// Stores locks, their events and their writes in a file. Clones share it. A save is durable before it is acknowledged (WAL,
/// `synchronous=FULL`).
#[derive(Clone)]
pub struct SqliteLockRepo {
    readers: Readers,
    leases: ObservedLeases,
    memory: SharedMemory,
    process_lock: Arc<ProcessLock>,
    _checkpoints: Arc<Checkpoints>,
    check: Option<Arc<IntegrityCheck>>,
    /// Dropped last: closing the last connection makes a checkpoint.
    writer: GroupCommit<LogWriter>,
}

impl SqliteLockRepo {
    /// Opens or creates the file. The whole file is checked once: before this returns if it has at most 64 MiB, otherwise in
    /// the background, and [`ended`](Self::ended) returns if it finds damage. Saves that an earlier process has left in the log are
    /// applied to the tables, if no other process has the file open. `timer` measures leases, and how long changes stay in memory. Leases in the file
    /// count as expired if no other process has the file open. Otherwise each starts when this process first reads it, in
    /// `claim` or `backlog`.
    ///
    /// # Errors
    /// The file is corrupt, belongs to another program, has a newer schema or is in use. The text names the file.
    pub fn open(path: &Path, timer: Arc<dyn Timer>) -> Result<Self, OpenError> {
        let format = &schema::FORMAT;
        let mut conn = format.open(path)?;
        let refuse = |error: FileError| format.open_error(path, error);
        let contents =
            |error: &dyn std::fmt::Display| refuse(FileError::Contents(error.to_string()));
        // The writer makes checkpoints itself only if those in the background cannot keep up.
        conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .map(|page| checkpoint::MAX_WAL_BYTES / page)
            .and_then(|pages| conn.pragma_update(None, "wal_autocheckpoint", pages))
            .map_err(|e| refuse(e.into()))?;
        let check = format.is_large(path).then(|| IntegrityCheck::start(path));
        let check = check.transpose()?.map(Arc::new);
        // `acquire` requires that nothing has been saved yet.
        let open_intents = || {
            let transaction = conn
                .unchecked_transaction()
                .map_err(statement::unavailable)?;
            let (tail, _) = log_writer::read_tail(&transaction, None)?;
            write_rows::open_intents(&transaction, &tail.open_intents())
        };
        let (process_lock, expired) =
            ProcessLock::acquire(path, open_intents).map_err(|e| refuse(e.into()))?;
        let process_lock = Arc::new(process_lock);
        let memory = Arc::new(Mutex::new(Memory::new()));
        let mut log_writer = LogWriter::new(memory.clone(), process_lock.clone(), timer.clone())
            .map_err(|e| contents(&e))?;
        let leases = ObservedLeases::new(timer);
        if let Some(intents) = expired {
            leases.add_expired(intents.map_err(|e| contents(&e))?);
            log_writer.recover(&mut conn).map_err(refuse)?;
        }
        let readers = Readers::open(path)?;
        let writer = GroupCommit::start_with("locks", conn, log_writer);
        let writer = writer.map_err(|e| refuse(e.into()))?;
        let checkpoints = Checkpoints::start(path, memory.clone(), writer.downgrade());
        let checkpoints = checkpoints.map_err(|e| refuse(e.into()))?;
        Ok(Self {
            readers,
            leases,
            memory,
            process_lock,
            _checkpoints: Arc::new(checkpoints),
            check,
            writer,
        })
    }

    /// The settings `journal_mode` and `synchronous` (2: FULL) of the writer's connection.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`]: the store cannot be used.
    pub async fn durability(&self) -> Result<(String, i64), RepoError> {
        let job = |transaction: &Transaction<'_>, _: &mut LogWriter| {
            let mode = transaction.pragma_query_value(None, "journal_mode", |row| row.get(0));
            let synchronous = transaction.pragma_query_value(None, "synchronous", |row| row.get(0));
            mode.and_then(|mode| Ok((mode, synchronous?)))
                .map_err(statement::unavailable)
        };
        self.in_transaction(Sharing::NoSavepoint, job).await
    }

    /// Waits until the store can no longer be used: a commit failed, so the content of the file is unknown until the file
    /// is opened again, or the file is damaged.
    pub async fn ended(&self) {
        let corrupt = async {
            match &self.check {
                Some(check) => check.corrupt().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = self.writer.ended() => {
                // The process may end before the failed save has logged the reason.
                error!(%error, "locks cannot be stored");
            }
            () = corrupt => {}
        }
    }

    /// Imports events as [`LockHistory::import`] does, from an iterator, so that they need not fit in memory. An event with the version
    /// [`NEXT_VERSION`](super::NEXT_VERSION) takes the next version of its lock. Reads continue meanwhile; saves wait.
    ///
    /// # Errors
    /// The first error of `events`, or of the import. Nothing is imported then, except that after [`RepoError::Unknown`] all
    /// events may have been.
    pub async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send + 'static,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send + 'static,
    {
        let job = move |transaction: &Transaction<'_>, writer: &mut LogWriter| {
            writer.import(transaction, events)
        };
        let imported = self.writer.run_with(Sharing::Alone, job).await;
        imported.map_err(|error| ImportError::Store(repo_error(error)))?
    }

    async fn observe_leases(&self) -> Result<(), RepoError> {
        if self.leases.should_read() {
            let open = self.read(Tail::open_intents, |conn, changed| {
                write_rows::open_intents(conn, &changed)
            });
            self.leases.observe(open.await?);
        }
        Ok(())
    }

    /// Reads the tables together with the changes that they do not have yet. `select` gets these changes before `query` reads the tables, so
    /// that each change is seen at least once.
    async fn read<C, T>(
        &self,
        select: impl FnOnce(&Tail) -> C + Send + 'static,
        query: impl FnOnce(&Connection, C) -> Result<T, RepoError> + Send + 'static,
    ) -> Result<T, RepoError>
    where
        C: Send + 'static,
        T: Send + 'static,
    {
        let takeovers = self.process_lock.takeovers();
        let selected = {
            let memory = lock_memory(&self.memory);
            match memory.is_complete(takeovers) {
                true => Ok(select(&memory.tail)),
                false => Err(select),
            }
        };
        let query = move |conn: &Connection| {
            let selected = match selected {
                Ok(selected) => selected,
                // Another process has written. What is in the log has everything.
                Err(select) => select(&log_writer::read_tail(conn, None)?.0),
            };
            query(conn, selected)
        };
        self.readers.read(query).await
    }

    async fn in_transaction<T, E, F>(&self, sharing: Sharing, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<RepoError> + Send + 'static,
        F: FnOnce(&Transaction<'_>, &mut LogWriter) -> Result<T, E> + Send + 'static,
    {
        self.writer
            .run_with(sharing, job)
            .await
            .map_err(repo_error)?
    }
}

fn repo_error(error: CommitError) -> RepoError {
    match error {
        CommitError::NotApplied(why) => RepoError::Unavailable(why),
        CommitError::Unknown(why) => RepoError::Unknown(why),
    }
}

#[async_trait]
impl LockRepo for SqliteLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let takeovers = self.process_lock.takeovers();
        let load = {
            let mut memory = lock_memory(&self.memory);
            let is_complete = memory.is_complete(takeovers);
            if is_complete && let Some(snapshot) = memory.lock(lock).cloned() {
                drop(memory);
                return Ok(Some(LockSnapshot::clone(&snapshot)));
            }
            is_complete.then(|| memory.start_load(lock))
        };
        let memory = self.memory.clone();
        let query = move |conn: &Connection| {
            let Some(load) = load else {
                let (tail, _) = log_writer::read_tail(conn, Some(lock))?;
                return match tail.lock(lock) {
                    Some(changes) => Ok(Some(LockSnapshot::clone(&changes.snapshot))),
                    None => lock_rows::snapshot(conn, lock),
                };
            };
            let found = lock_rows::snapshot(conn, lock);
            let read = found.as_ref().ok().cloned().flatten();
            lock_memory(&memory).finish_load(lock, load, read);
            found
        };
        self.readers.read(query).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        log_writer::check_numbers(&save)?;
        let text = log_entry::save_text(&save);
        let job = move |transaction: &Transaction<'_>, writer: &mut LogWriter| {
            writer.save(transaction, save, &text)
        };
        self.in_transaction(Sharing::NoSavepoint, job).await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.observe_leases().await?;
        while let Some((id, expired)) = self.leases.next_expired() {
            let intent = expired.taken_over(worker, lease);
            let job = move |transaction: &Transaction<'_>, writer: &mut LogWriter| {
                writer.take_over(transaction, id, expired, intent)
            };
            let claimed = self.in_transaction(Sharing::NoSavepoint, job).await?;
            if claimed.is_some() {
                self.leases.claimed(id, intent);
                return Ok(claimed);
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LockHistory for SqliteLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        let select = move |tail: &Tail| tail.write(id).cloned();
        self.read(select, move |conn, changed| match changed {
            Some(write) => Ok(Some(write)),
            None => write_rows::write(conn, id),
        })
        .await
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let select = move |tail: &Tail| tail.events(lock, first);
        self.read(select, move |conn, changed| {
            let mut events = lock_rows::events(conn, lock, first, limit)?;
            let last = events.last().map(|event| event.version);
            let newer = |event: &RecordedEvent| last.is_none_or(|last| event.version > last);
            events.extend(changed.into_iter().filter(newer));
            events.truncate(limit);
            Ok(events)
        })
        .await
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let select = move |tail: &Tail| tail.events_after(after, limit);
        self.read(select, move |conn, (changed, last)| {
            let mut events = lock_rows::events_after(conn, after, last, limit)?;
            events.extend(changed);
            events.sort_by_key(|logged| logged.position);
            events.dedup_by_key(|logged| logged.position);
            events.truncate(limit);
            Ok(events)
        })
        .await
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let select =
            move |tail: &Tail| tail.writes(|write| before.is_none_or(|before| write.id < before));
        self.read(select, move |conn, changed| {
            let rows = write_rows::writes(conn, before, limit, &changed.ids)?;
            Ok(changed.merge(rows, limit, |write| Reverse(write.id)))
        })
        .await
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        self.read(Tail::last_positions, |conn, (last, changed)| match last {
            Some(last) => Ok(last),
            None => Ok(lock_rows::last_position(conn)?.max(changed.unwrap_or_default())),
        })
        .await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let select = move |tail: &Tail| {
            tail.writes(|write| {
                let due = DueCursor::of(write).filter(|due| due.at <= until);
                due.is_some_and(|due| after.is_none_or(|after| due > after))
            })
        };
        self.read(select, move |conn, changed| {
            let rows = write_rows::due(conn, until, after, limit, &changed.ids)?;
            Ok(changed.merge(rows, limit, DueCursor::of))
        })
        .await
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        self.observe_leases().await?;
        let oldest = self.leases.oldest();
        let unfinished = |write: &Write| write.intent().is_some() || write.next_check_at.is_some();
        let select = move |tail: &Tail| tail.writes(unfinished);
        self.read(select, move |conn, changed| {
            write_rows::backlog(conn, &recent_times, oldest, &changed)
        })
        .await
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let (scope, changed) = (scope.clone(), scope.clone());
        let select = move |tail: &Tail| tail.record(&changed).cloned();
        self.read(select, move |conn, changed| match changed {
            Some(record) => Ok(Some(record)),
            None => idempotency_rows::find_record(conn, scope),
        })
        .await
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let job = move |transaction: &Transaction<'_>, writer: &mut LogWriter| {
            writer.purge(transaction, now, ended_before, limit)
        };
        self.in_transaction(Sharing::Alone, job).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let select = move |tail: &Tail| tail.locks_after(after);
        self.read(select, move |conn, mut changed| {
            let mut locks = lock_rows::locks(conn, after, limit)?;
            for lock in &mut locks {
                if let Some(changed) = changed.remove(&lock.id) {
                    lock.clone_from(&changed.lock);
                }
            }
            Ok(locks)
        })
        .await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        self.import_all(events.into_iter().map(Ok)).await
    }
}
