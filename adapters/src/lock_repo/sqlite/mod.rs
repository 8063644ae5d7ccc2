//! Locks in an SQLite file: one writer that commits together whatever waits, and readers beside it.

mod checkpoint;
mod integrity_check;
mod live_ids;
mod process_lock;
mod readers;
mod rows;
mod schema;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Intent, Lock, LockId, LockSnapshot,
    LockVersion, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId, WriteState,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError, Timer};
use keywright_sqlite::{CommitError, FileError, GroupCommit, OpenError};
use rusqlite::{Connection, Transaction};

use super::columns::LockRow;
use super::leases::{ObservedLeases, OpenIntent};
use checkpoint::Checkpoints;
use integrity_check::IntegrityCheck;
use process_lock::ProcessLock;
use readers::Readers;

/// Holds locks, their events and their writes in a file. Clones share it. A save is on the disk before it
/// is answered (WAL, `synchronous=FULL`).
#[derive(Clone)]
pub struct SqliteLockRepo {
    readers: Readers,
    leases: ObservedLeases,
    _presence: Arc<ProcessLock>,
    _checkpoints: Arc<Checkpoints>,
    check: Option<Arc<IntegrityCheck>>,
    /// Dropped last: the connection that is closed last writes the log back into the file.
    writer: GroupCommit,
}

impl SqliteLockRepo {
    /// Opens the file, which is made where it is missing. The whole file is read once, to find out whether it is
    /// sound: at once where it has 64 MiB at most, else beside all else, and then [`ended`](Self::ended) tells.
    /// Leases are counted by `timer`. Those that an earlier process left in the file are over where no other process has it
    /// open, and run from the first claim on where one has.
    ///
    /// # Errors
    /// The file is corrupt, another program's, of a newer schema or in use; the text names it.
    pub fn open(path: &Path, timer: Arc<dyn Timer>) -> Result<Self, OpenError> {
        let format = &schema::FORMAT;
        let conn = format.open(path)?;
        let refuse = |error: FileError| format.open_error(path, error);
        // Checkpoints run beside the writer; its own is for the case that they cannot keep up.
        conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .map(|page| checkpoint::MAX_WAL_BYTES / page)
            .and_then(|pages| conn.pragma_update(None, "wal_autocheckpoint", pages))
            .map_err(|e| refuse(e.into()))?;
        let check = format.is_large(path).then(|| IntegrityCheck::start(path));
        let check = check.transpose()?.map(Arc::new);
        // Before anything is saved.
        let left = || rows::open_intents(&conn);
        let (process_lock, left) = ProcessLock::enter(path, left);
        let leases = ObservedLeases::new(timer);
        if let Some(left) = left {
            leases.adopt(left.map_err(|e| refuse(FileError::Contents(e.to_string())))?);
        }
        let readers = Readers::open(path)?;
        let checkpoints = Checkpoints::start(path).map_err(|e| refuse(e.into()))?;
        let writer = GroupCommit::start("locks", conn).map_err(|e| refuse(e.into()))?;
        Ok(Self {
            readers,
            leases,
            _presence: Arc::new(process_lock),
            _checkpoints: Arc::new(checkpoints),
            check,
            writer,
        })
    }

    /// What the writer's connection says of its own durability: `journal_mode` and `synchronous` (2 is FULL).
    ///
    /// # Errors
    /// [`RepoError::Unavailable`].
    pub async fn durability(&self) -> Result<(String, i64), RepoError> {
        self.write(|transaction| {
            let mode = transaction.pragma_query_value(None, "journal_mode", |row| row.get(0));
            let synchronous = transaction.pragma_query_value(None, "synchronous", |row| row.get(0));
            mode.and_then(|mode| Ok((mode, synchronous?)))
                .map_err(rows::unavailable)
        })
        .await
    }

    /// Waits until nothing more should be saved: a commit failed, so that what the store holds is known once it is
    /// opened again, or its file was found to be damaged.
    pub async fn ended(&self) {
        let corrupt = async {
            match &self.check {
                Some(check) => check.corrupt().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.writer.ended() => {}
            () = corrupt => {}
        }
    }

    /// As [`LockHistory::import`], for more events than fit in memory: all of them or, from the first error on,
    /// none. Others can read meanwhile, and who wants to write waits.
    ///
    /// # Errors
    /// What `events` says, or why one of them was not taken.
    pub async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send + 'static,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send + 'static,
    {
        let job = move |transaction: &Transaction<'_>| import(transaction, events);
        self.writer.run(job).await.map_err(|error| {
            E::from(ImportError::Store(match error {
                CommitError::NotApplied(why) => RepoError::Unavailable(why),
                CommitError::Unknown(why) => RepoError::Unknown(why),
            }))
        })?
    }

    async fn observe_leases(&self) -> Result<(), RepoError> {
        if self.leases.should_observe() {
            let open = self.readers.read(rows::open_intents).await?;
            self.leases.observe(open);
        }
        Ok(())
    }

    async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<RepoError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writer.run(job).await.map_err(|error| match error {
            CommitError::NotApplied(why) => RepoError::Unavailable(why),
            CommitError::Unknown(why) => RepoError::Unknown(why),
        })?
    }
}

#[async_trait]
impl LockRepo for SqliteLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.readers.read(move |conn| snapshot(conn, lock)).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        self.write(move |transaction| apply(transaction, save))
            .await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.observe_leases().await?;
        while let Some(overdue) = self.leases.next_overdue() {
            let claimed = self
                .write(move |transaction| take_over(transaction, overdue, worker, lease))
                .await?;
            if let Some((write, intent)) = claimed {
                self.leases.claimed(intent);
                return Ok(Some(write));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LockHistory for SqliteLockRepo {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        self.readers.read(move |conn| rows::write(conn, id)).await
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        self.readers
            .read(move |conn| rows::events(conn, lock, first, limit))
            .await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let after = after.map_or((None, WriteId::from_u128(0)), |due| (Some(due.at), due.id));
        self.readers
            .read(move |conn| rows::due_writes(conn, until, after, limit))
            .await
    }

    async fn backlog(&self, recently: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        self.observe_leases().await?;
        let oldest = self.leases.oldest();
        self.readers
            .read(move |conn| rows::backlog(conn, recently, oldest))
            .await
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let scope = scope.clone();
        self.readers
            .read(move |conn| rows::idempotency_record(conn, scope))
            .await
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        self.write(move |transaction| rows::purge(transaction, now, ended_before, limit))
            .await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        self.readers
            .read(move |conn| rows::locks(conn, after, limit))
            .await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        self.import_all(events.into_iter().map(Ok)).await
    }
}

/// It is read in a transaction, so that the lock and its writes are of one revision.
fn snapshot(conn: &Connection, id: LockId) -> Result<Option<LockSnapshot>, RepoError> {
    let Some((row, live)) = rows::lock(conn, id)? else {
        return Ok(None);
    };
    let live = live.ids().map(|write| {
        let found = rows::write(conn, write)?;
        found.ok_or_else(|| rows::corrupt_live(id))
    });
    Ok(Some(row.with(live.collect::<Result<_, _>>()?)))
}

fn apply(transaction: &Transaction<'_>, save: Save) -> Result<(), RepoError> {
    let Save {
        lock,
        revision,
        folded,
        shadow_version,
        ..
    } = save;
    let known = rows::live_at(transaction, lock, revision)?;
    let mut live = known.ok_or(RepoError::Stale)?;
    let mut changed = false;
    for write in &save.writes {
        changed |= live.put(write);
    }
    let live = changed.then_some(live);
    rows::move_lock(
        transaction,
        lock,
        folded.as_deref(),
        shadow_version,
        live.as_ref(),
    )?;
    save.events
        .iter()
        .try_for_each(|event| rows::append(transaction, event))?;
    if let Some(record) = &save.idempotency {
        rows::put_idempotency_record(transaction, record)?;
    }
    save.writes
        .iter()
        .try_for_each(|write| rows::put_write(transaction, write))
}

/// `None`: the intent is closed, or another owner has taken it over.
fn take_over(
    transaction: &Transaction<'_>,
    overdue: OpenIntent,
    worker: WorkerId,
    lease: Duration,
) -> Result<Option<(Write, OpenIntent)>, RepoError> {
    let Some(mut write) = rows::write(transaction, overdue.write)? else {
        return Ok(None);
    };
    let unchanged = |i: &&Intent| (i.worker, i.epoch) == (overdue.worker, overdue.epoch);
    let Some(intent) = write.intent().filter(unchanged) else {
        return Ok(None);
    };
    let epoch = intent.epoch.next();
    write.state = WriteState::Prepared(Intent {
        worker,
        epoch,
        lease,
    });
    rows::put_write(transaction, &write)?;
    rows::move_lock(transaction, write.lock, None, None, None)?;
    let claimed = OpenIntent {
        worker,
        epoch,
        lease,
        ..overdue
    };
    Ok(Some((write, claimed)))
}

/// Events of one lock after the other are cheap: its row is read and written once.
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
            finish(transaction, current.take())?;
        }
        let known = match current.take() {
            Some(row) => Some(row),
            None => {
                let found = rows::lock(transaction, event.lock).map_err(ImportError::Store)?;
                found.map(|(row, _)| row)
            }
        };
        let row = super::follow(known, &mut event)?;
        rows::append(transaction, &event).map_err(ImportError::Store)?;
        current = Some(row);
    }
    finish(transaction, current)
}

fn finish<E: From<ImportError>>(
    transaction: &Transaction<'_>,
    row: Option<LockRow>,
) -> Result<(), E> {
    if let Some(mut row) = row {
        row.revision = row.revision.next();
        rows::put_lock(transaction, &row).map_err(ImportError::Store)?;
    }
    Ok(())
}
