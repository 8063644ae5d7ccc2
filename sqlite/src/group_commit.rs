use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::batch::drain_batch;
use crate::join_on_drop::JoinOnDrop;

/// How many jobs may be queued. Callers beyond that wait until there is room.
const QUEUE_CAPACITY: usize = 1024;

/// How many jobs share a commit at most. More jobs would change more pages than fit into a processor's caches.
const MAX_BATCH: usize = 96;

/// A writer thread over one connection, which commits queued jobs together, up to `MAX_BATCH` in one transaction.
///
/// A commit costs a sync of the disk, however many changes it holds. Clones share the writer. Dropping the last clone waits until
/// the writer has done the queued jobs and has closed the connection.
pub struct GroupCommit<S = ()> {
    jobs: mpsc::Sender<Job<S>>,
    _thread: Arc<JoinOnDrop>,
    /// Why a commit failed, set before the queue is closed for it.
    failure: Arc<OnceLock<String>>,
}

impl<S> Clone for GroupCommit<S> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
            _thread: self._thread.clone(),
            failure: self.failure.clone(),
        }
    }
}

/// What a writer thread keeps beside its file, and what it does around the jobs of each transaction.
pub trait WriterState: Send + 'static {
    /// Runs at the start of each transaction.
    ///
    /// # Errors
    /// The text fails all jobs of the transaction. None is applied.
    fn begin(&mut self, _transaction: &Transaction<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Runs after the jobs of each transaction.
    ///
    /// # Errors
    /// The text fails all jobs of the transaction. None is applied.
    fn before_commit(&mut self, _transaction: &Transaction<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Runs after the commit (`true`), or if the transaction was rolled back or its outcome is unknown (`false`), before any caller
    /// gets the outcome of its job. It follows each call of `begin`, also one that failed.
    fn ended(&mut self, _committed: bool) {}

    /// Runs after the last job, unless a commit has failed.
    fn close(&mut self, _conn: &mut Connection) {}
}

impl WriterState for () {}

/// How a job shares transactions with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It shares a transaction. If it fails, its changes are rolled back to a savepoint.
    Savepoint,
    /// It shares a transaction, and has changed nothing if it fails, so that it needs no savepoint.
    NoSavepoint,
    /// It has a transaction of its own, which is rolled back if it fails.
    Alone,
}

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The job changed nothing.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// The commit itself failed, so the job's changes may be in the file. The writer runs no further jobs, because only opening
    /// the file again shows what it holds.
    #[error("not known whether applied: {0}")]
    Unknown(String),
}

/// Runs in a transaction, or reports to its caller why there is none.
type Run<S> =
    Box<dyn FnOnce(Result<(&Transaction<'_>, &mut S), CommitError>) -> Option<FinishedJob> + Send>;

struct Job<S> {
    sharing: Sharing,
    run: Run<S>,
}

/// Reports a job's outcome to its caller, once it is known whether it was committed.
type Report = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// A job that has run and is not committed yet.
struct FinishedJob {
    succeeded: bool,
    report: Report,
}

impl GroupCommit {
    /// Starts the writer thread under this name. The caller has configured the connection (WAL, `synchronous`).
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(name: &str, conn: Connection) -> std::io::Result<Self> {
        Self::start_with(name, conn, ())
    }

    /// Runs a job in the next transaction and returns after its commit. Jobs run in the order in which they were queued, and each
    /// sees the changes of those before it. The changes of a job that returns `Err` or panics are rolled back; other jobs are
    /// not affected. A job must not end the transaction itself.
    ///
    /// A queued job also runs if the future is dropped.
    ///
    /// # Errors
    /// The outer error is that of the commit, the inner one the job's own.
    pub async fn run<T, E, F>(&self, job: F) -> Result<Result<T, E>, CommitError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run_then(job, |_| ()).await
    }

    /// As [`run`](Self::run); `then` receives the job's result on the writer thread, after the commit and before the caller does, in
    /// the order of the jobs, and also if the future was dropped. It is not called for a job that failed or was not committed.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_then<T, E, F, G>(&self, job: F, then: G) -> Result<Result<T, E>, CommitError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let job = move |transaction: &Transaction<'_>, (): &mut ()| job(transaction);
        self.queue(Sharing::Savepoint, job, then).await
    }
}

impl<S: WriterState> GroupCommit<S> {
    /// As [`start`](GroupCommit::start), with a state that only the writer thread uses.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start_with(name: &str, conn: Connection, state: S) -> std::io::Result<Self> {
        let mut thread = JoinOnDrop::default();
        let (jobs, queue) = mpsc::channel(QUEUE_CAPACITY);
        let failure = Arc::new(OnceLock::new());
        let set = failure.clone();
        thread.spawn(name, move || run_jobs(conn, state, queue, &set))?;
        Ok(Self {
            jobs,
            _thread: Arc::new(thread),
            failure,
        })
    }

    /// As [`run`](GroupCommit::run), for a job that also uses the writer's state. A job that fails must leave the state as it was.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_with<T, E, F>(
        &self,
        sharing: Sharing,
        job: F,
    ) -> Result<Result<T, E>, CommitError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>, &mut S) -> Result<T, E> + Send + 'static,
    {
        self.queue(sharing, job, |_| ()).await
    }

    /// A handle that queues jobs whose outcome nobody waits for. It does not keep the writer running.
    pub fn downgrade(&self) -> WeakGroupCommit<S> {
        WeakGroupCommit(self.jobs.downgrade())
    }

    /// Waits until the writer accepts no more jobs because a commit failed, and returns why. The file then has to be opened again.
    pub async fn ended(&self) -> String {
        self.jobs.closed().await;
        let reason = self.failure.get().cloned();
        reason.unwrap_or_else(|| "the writer has ended".into())
    }

    async fn queue<T, E, F, G>(
        &self,
        sharing: Sharing,
        job: F,
        then: G,
    ) -> Result<Result<T, E>, CommitError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>, &mut S) -> Result<T, E> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let run: Run<S> = Box::new(move |transaction| {
            // The receiver is gone if the future was dropped.
            let send = move |outcome| drop(tx.send(outcome));
            let outcome = match transaction {
                Ok((transaction, state)) => {
                    catch_unwind(AssertUnwindSafe(|| job(transaction, state)))
                }
                Err(e) => {
                    send(Err(e));
                    return None;
                }
            };
            let Ok(outcome) = outcome else {
                let report = |_| send(Err(CommitError::NotApplied("the job panicked".into())));
                return Some(FinishedJob {
                    succeeded: false,
                    report: Box::new(report),
                });
            };
            Some(FinishedJob {
                succeeded: outcome.is_ok(),
                report: Box::new(move |committed| {
                    if let (Ok(()), Ok(done)) = (&committed, &outcome) {
                        then(done);
                    }
                    // A failed job left nothing to commit, so a failed commit does not concern it.
                    let committed = if outcome.is_err() { Ok(()) } else { committed };
                    send(committed.map(|()| outcome));
                }),
            })
        });
        let ended = |_| CommitError::NotApplied("the writer has ended".into());
        let queued = self.jobs.send(Job { sharing, run }).await;
        queued.map_err(ended)?;
        rx.await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the writer was lost".into())))
    }
}

/// Queues jobs of a [`GroupCommit`] that others keep running.
pub struct WeakGroupCommit<S>(mpsc::WeakSender<Job<S>>);

impl<S> WeakGroupCommit<S> {
    /// Queues a job in a transaction of its own, if the queue has room and the writer is running.
    pub fn try_run(
        &self,
        job: impl FnOnce(&Transaction<'_>, &mut S) -> Result<(), String> + Send + 'static,
    ) {
        let run: Run<S> = Box::new(move |transaction| {
            let (transaction, state) = transaction.ok()?;
            let outcome = catch_unwind(AssertUnwindSafe(|| job(transaction, state)));
            Some(FinishedJob {
                succeeded: matches!(outcome, Ok(Ok(()))),
                report: Box::new(|_| ()),
            })
        });
        let sharing = Sharing::Alone;
        if let Some(jobs) = self.0.upgrade() {
            let _ = jobs.try_send(Job { sharing, run });
        }
    }
}

fn run_jobs<S: WriterState>(
    mut conn: Connection,
    mut state: S,
    mut queue: mpsc::Receiver<Job<S>>,
    failure: &OnceLock<String>,
) {
    while let Some(batch) = drain_batch(&mut queue, MAX_BATCH) {
        let mut jobs = batch.into_iter().peekable();
        while jobs.peek().is_some() {
            if let Err(CommitError::Unknown(reason)) = commit_next(&mut conn, &mut state, &mut jobs)
            {
                // Set first, so that the reason is there when the queue is closed.
                let _ = failure.set(reason.clone());
                queue.close();
                let refused =
                    CommitError::NotApplied(format!("an earlier commit failed: {reason}"));
                let refuse = |job: Job<S>| drop((job.run)(Err(refused.clone())));
                jobs.by_ref().for_each(refuse);
                while let Some(job) = queue.blocking_recv() {
                    refuse(job);
                }
                return;
            }
        }
    }
    state.close(&mut conn);
}

/// Runs and commits a job that is alone, or all jobs up to the next one that is alone.
fn commit_next<S: WriterState>(
    conn: &mut Connection,
    state: &mut S,
    jobs: &mut Peekable<impl Iterator<Item = Job<S>>>,
) -> Result<(), CommitError> {
    let mut alone = jobs.next_if(|job| job.sharing == Sharing::Alone);
    let is_alone = alone.is_some();
    let mut next = || match is_alone {
        true => alone.take(),
        false => jobs.next_if(|job| job.sharing != Sharing::Alone),
    };
    let begun = Transaction::new(conn, TransactionBehavior::Immediate).map_err(not_applied);
    let begun = begun.and_then(|transaction| match state.begin(&transaction) {
        Ok(()) => Ok(transaction),
        Err(reason) => {
            state.ended(false);
            Err(CommitError::NotApplied(reason))
        }
    });
    let transaction = match begun {
        Ok(transaction) => transaction,
        Err(e) => {
            while let Some(job) = next() {
                (job.run)(Err(e.clone()));
            }
            return Err(e);
        }
    };
    let mut reports = Vec::new();
    let mut broken = None;
    let mut failed_alone = false;
    while let Some(job) = next() {
        if let Some(e) = &broken {
            drop((job.run)(Err(CommitError::clone(e))));
            continue;
        }
        let (report, error) = match job.sharing {
            Sharing::Savepoint => run_in_savepoint(&transaction, state, job.run),
            Sharing::NoSavepoint | Sharing::Alone => match (job.run)(Ok((&transaction, state))) {
                Some(FinishedJob { succeeded, report }) => {
                    failed_alone = is_alone && !succeeded;
                    (Some(report), None)
                }
                None => (None, None),
            },
        };
        reports.extend(report);
        broken = error.map(not_applied).or_else(|| lost(&transaction));
    }
    if broken.is_none() && !failed_alone {
        let prepared = state.before_commit(&transaction);
        let error = prepared.err().map(CommitError::NotApplied);
        broken = error.or_else(|| lost(&transaction));
    }
    // After a failed savepoint statement, the transaction may hold changes of a failed job: then nothing is committed.
    let outcome = match broken {
        None if !failed_alone => transaction
            .commit()
            .map_err(|e| CommitError::Unknown(e.to_string())),
        broken => {
            let rolled_back = match transaction.is_autocommit() {
                true => Ok(()),
                false => transaction.rollback(),
            };
            match rolled_back {
                Ok(()) => broken.map_or(Ok(()), Err),
                Err(e) => Err(CommitError::Unknown(e.to_string())),
            }
        }
    };
    state.ended(outcome.is_ok() && !failed_alone);
    for report in reports {
        // A panic in a job's `then` must not end the writer.
        let _ = catch_unwind(AssertUnwindSafe(|| report(outcome.clone())));
    }
    outcome
}

/// The error if SQLite has rolled the transaction back by itself, as it does when the disk is full or cannot be read. Further statements
/// would be committed one by one.
fn lost(transaction: &Transaction<'_>) -> Option<CommitError> {
    let ended = transaction.is_autocommit();
    ended.then(|| CommitError::NotApplied("an error has ended the transaction".into()))
}

fn not_applied(error: rusqlite::Error) -> CommitError {
    CommitError::NotApplied(error.to_string())
}

/// Runs a job, and rolls its changes back if it failed. An error means that the transaction is unusable.
fn run_in_savepoint<S>(
    transaction: &Transaction<'_>,
    state: &mut S,
    run: Run<S>,
) -> (Option<Report>, Option<rusqlite::Error>) {
    let sql = |text| {
        transaction
            .prepare_cached(text)
            .and_then(|mut s| s.execute([]))
    };
    if let Err(e) = sql("SAVEPOINT job") {
        run(Err(CommitError::NotApplied(e.to_string())));
        return (None, Some(e));
    }
    let Some(FinishedJob { succeeded, report }) = run(Ok((transaction, state))) else {
        return (None, None);
    };
    let rolled_back = if succeeded {
        Ok(0)
    } else {
        sql("ROLLBACK TO job")
    };
    let error = rolled_back.and_then(|_| sql("RELEASE job")).err();
    (Some(report), error)
}
