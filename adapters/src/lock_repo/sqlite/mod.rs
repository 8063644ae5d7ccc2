//! Locks in a SQLite file: one writer, which commits all queued changes together, and several readers.

mod checkpoint;
mod idempotency_rows;
mod integrity_check;
mod live_write_ids;
mod lock_rows;
mod other_processes;
mod readers;
mod schema;
mod statement;
mod write_rows;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Intent, Lock, LockId, LockSnapshot,
    LockVersion, LoggedEvent, Position, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId,
    WriteState,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};
use keywright_sqlite::{CommitError, FileError, GroupCommit, OpenError};
use rusqlite::{Connection, Transaction};

use super::lock_row::LockRow;
use super::observed_leases::ObservedLeases;
use checkpoint::Checkpoints;
use integrity_check::IntegrityCheck;
use other_processes::ProcessLock;
use readers::Readers;
use tracing::error;

/// Stores locks, their events and their writes in a file. Clones share it. A save is durable before it is acknowledged (WAL,
/// `synchronous=FULL`).
#[derive(Clone)]
pub struct SqliteLockRepo {
    readers: Readers,
    leases: ObservedLeases,
    _process_lock: Arc<ProcessLock>,
    _checkpoints: Arc<Checkpoints>,
    check: Option<Arc<IntegrityCheck>>,
    /// Dropped last: closing the last connection makes a checkpoint.
    writer: GroupCommit,
}

impl SqliteLockRepo {
    /// Opens or creates the file. The whole file is checked once: before this returns if it has at most 64 MiB, otherwise in
    /// the background, and [`ended`](Self::ended) returns if it finds damage. `timer` measures leases. Leases in the file
    /// count as expired if no other process has the file open. Otherwise each starts when this process first reads it, in
    /// `claim` or `backlog`.
    ///
    /// # Errors
    /// The file is corrupt, belongs to another program, has a newer schema or is in use. The text names the file.
    pub fn open(path: &Path, timer: Arc<dyn Timer>) -> Result<Self, OpenError> {
        let format = &schema::FORMAT;
        let conn = format.open(path)?;
        let refuse = |error: FileError| format.open_error(path, error);
        // The writer makes checkpoints itself only if those in the background cannot keep up.
        conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .map(|page| checkpoint::MAX_WAL_BYTES / page)
            .and_then(|pages| conn.pragma_update(None, "wal_autocheckpoint", pages))
            .map_err(|e| refuse(e.into()))?;
        let check = format.is_large(path).then(|| IntegrityCheck::start(path));
        let check = check.transpose()?.map(Arc::new);
        // `acquire` requires that nothing has been saved yet.
        let open_intents = || write_rows::open_intents(&conn);
        let (process_lock, expired) = ProcessLock::acquire(path, open_intents);
        let leases = ObservedLeases::new(timer);
        if let Some(intents) = expired {
            let intents = intents.map_err(|e| refuse(FileError::Contents(e.to_string())));
            leases.add_expired(intents?);
        }
        let readers = Readers::open(path)?;
        let checkpoints = Checkpoints::start(path).map_err(|e| refuse(e.into()))?;
        let writer = GroupCommit::start("locks", conn).map_err(|e| refuse(e.into()))?;
        Ok(Self {
            readers,
            leases,
            _process_lock: Arc::new(process_lock),
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
        self.in_transaction(|transaction| {
            let mode = transaction.pragma_query_value(None, "journal_mode", |row| row.get(0));
            let synchronous = transaction.pragma_query_value(None, "synchronous", |row| row.get(0));
            mode.and_then(|mode| Ok((mode, synchronous?)))
                .map_err(statement::unavailable)
        })
        .await
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
        let job = move |transaction: &Transaction<'_>| import(transaction, events);
        let imported = self.writer.run(job).await;
        imported.map_err(|error| ImportError::Store(repo_error(error)))?
    }

    async fn observe_leases(&self) -> Result<(), RepoError> {
        if self.leases.should_read() {
            let open = self.readers.read(write_rows::open_intents).await?;
            self.leases.observe(open);
        }
        Ok(())
    }

    async fn in_transaction<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<RepoError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writer.run(job).await.map_err(repo_error)?
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
        self.readers.read(move |conn| snapshot(conn, lock)).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        self.in_transaction(move |transaction| apply(transaction, save))
            .await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.observe_leases().await?;
        while let Some((id, expired)) = self.leases.next_expired() {
            let intent = expired.taken_over(worker, lease);
            let claimed = self.in_transaction(move |t| take_over(t, id, expired, intent));
            let claimed = claimed.await?;
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
        self.readers
            .read(move |conn| write_rows::write(conn, id))
            .await
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        self.readers
            .read(move |conn| lock_rows::events(conn, lock, first, limit))
            .await
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        self.readers
            .read(move |conn| lock_rows::events_after(conn, after, limit))
            .await
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        self.readers
            .read(move |conn| write_rows::writes(conn, before, limit))
            .await
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        self.readers.read(lock_rows::last_position).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        self.readers
            .read(move |conn| write_rows::due(conn, until, after, limit))
            .await
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        self.observe_leases().await?;
        let oldest = self.leases.oldest();
        self.readers
            .read(move |conn| write_rows::backlog(conn, recent_times, oldest))
            .await
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let scope = scope.clone();
        self.readers
            .read(move |conn| idempotency_rows::find_record(conn, scope))
            .await
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        self.in_transaction(move |transaction| {
            idempotency_rows::purge(transaction, now, ended_before, limit)
        })
        .await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        self.readers
            .read(move |conn| lock_rows::locks(conn, after, limit))
            .await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        self.import_all(events.into_iter().map(Ok)).await
    }
}

/// Reads a lock and its live writes. `conn` is in a transaction, so both have the same revision.
fn snapshot(conn: &Connection, id: LockId) -> Result<Option<LockSnapshot>, RepoError> {
    let Some((row, live)) = lock_rows::lock(conn, id)? else {
        return Ok(None);
    };
    let live = live.ids().map(|write| {
        let found = write_rows::write(conn, write)?;
        found.ok_or_else(|| lock_rows::corrupt_live(id))
    });
    Ok(Some(row.into_snapshot(live.collect::<Result<_, _>>()?)))
}

fn apply(transaction: &Transaction<'_>, save: Save) -> Result<(), RepoError> {
    let Save {
        lock,
        revision,
        folded,
        shadow_version,
        ..
    } = save;
    let known = lock_rows::live_at(transaction, lock, revision)?;
    let mut live = known.ok_or(RepoError::Stale)?;
    let mut changed = false;
    for write in &save.writes {
        changed |= live.update(write);
    }
    let live = changed.then_some(live);
    lock_rows::update_lock(
        transaction,
        lock,
        folded.as_deref(),
        shadow_version,
        live.as_ref(),
    )?;
    save.events
        .iter()
        .try_for_each(|event| lock_rows::append_event(transaction, event))?;
    if let Some(record) = &save.idempotency {
        idempotency_rows::upsert_record(transaction, record)?;
    }
    save.writes
        .iter()
        .try_for_each(|write| write_rows::put_write(transaction, write))
}

/// Takes over an expired intent. `None`: it is closed, or another process has taken it over.
fn take_over(
    transaction: &Transaction<'_>,
    id: WriteId,
    expired: Intent,
    intent: Intent,
) -> Result<Option<Write>, RepoError> {
    let unchanged = |i: &Intent| (i.worker, i.epoch) == (expired.worker, expired.epoch);
    let found = write_rows::write(transaction, id)?;
    let Some(mut write) = found.filter(|w| w.intent().is_some_and(unchanged)) else {
        return Ok(None);
    };
    write.state = WriteState::Prepared(intent);
    write_rows::put_write(transaction, &write)?;
    lock_rows::update_lock(transaction, write.lock, None, None, None)?;
    Ok(Some(write))
}

/// Imports events. For a run of events of one lock, the lock's row is read and written once.
fn import<E: From<ImportError>>(
    transaction: &Transaction<'_>,
    events: impl Iterator<Item = Result<RecordedEvent, E>>,
) -> Result<(), E> {
    let mut current: Option<LockRow> = None;
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
                let found = lock_rows::lock(transaction, event.lock).map_err(ImportError::Store)?;
                found.map(|(row, _)| row)
            }
        };
        let row = LockRow::import(known, &mut event)?;
        lock_rows::append_event(transaction, &event).map_err(ImportError::Store)?;
        current = Some(row);
    }
    put_imported(transaction, current)
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
