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
#[derive(Clone)]
pub struct GroupCommit {
    jobs: mpsc::Sender<Job>,
    _thread: Arc<JoinOnDrop>,
    /// Why a commit failed, set before the queue is closed for it.
    failure: Arc<OnceLock<String>>,
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
type Job = Box<dyn FnOnce(Result<&Transaction<'_>, CommitError>) -> Option<FinishedJob> + Send>;

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
        let mut thread = JoinOnDrop::default();
        let (jobs, queue) = mpsc::channel(QUEUE_CAPACITY);
        let failure = Arc::new(OnceLock::new());
        let set = failure.clone();
        thread.spawn(name, move || run_jobs(conn, queue, &set))?;
        Ok(Self {
            jobs,
            _thread: Arc::new(thread),
            failure,
        })
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

    /// Waits until the writer accepts no more jobs because a commit failed, and returns why. The file then has to be opened again.
    pub async fn ended(&self) -> String {
        self.jobs.closed().await;
        let reason = self.failure.get().cloned();
        reason.unwrap_or_else(|| "the writer has ended".into())
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
        let (tx, rx) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            // The receiver is gone if the future was dropped.
            let send = move |outcome| drop(tx.send(outcome));
            let outcome = match transaction {
                Ok(transaction) => catch_unwind(AssertUnwindSafe(|| job(transaction))),
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
        self.jobs.send(job).await.map_err(ended)?;
        rx.await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the writer was lost".into())))
    }
}

fn run_jobs(mut conn: Connection, mut queue: mpsc::Receiver<Job>, failure: &OnceLock<String>) {
    while let Some(batch) = drain_batch(&mut queue, MAX_BATCH) {
        if let Err(CommitError::Unknown(reason)) = commit_batch(&mut conn, batch) {
            // Set first, so that the reason is there when the queue is closed.
            let _ = failure.set(reason.clone());
            queue.close();
            let refused = CommitError::NotApplied(format!("an earlier commit failed: {reason}"));
            while let Some(job) = queue.blocking_recv() {
                job(Err(refused.clone()));
            }
        }
    }
}

fn commit_batch(conn: &mut Connection, batch: Vec<Job>) -> Result<(), CommitError> {
    let transaction = match Transaction::new(conn, TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(e) => {
            let e = not_applied(e);
            for job in batch {
                job(Err(e.clone()));
            }
            return Err(e);
        }
    };
    let mut reports = Vec::with_capacity(batch.len());
    let mut broken = None;
    for job in batch {
        match &broken {
            None => {
                let (report, error) = run_in_savepoint(&transaction, job);
                reports.extend(report);
                broken = error.map(not_applied);
            }
            Some(e) => drop(job(Err(e.clone()))),
        }
    }
    // After a failed savepoint statement, the transaction may hold changes of a failed job: then nothing is committed.
    let outcome = match broken {
        Some(e) => match transaction.rollback() {
            Ok(()) => Err(e),
            Err(e) => Err(CommitError::Unknown(e.to_string())),
        },
        None => transaction
            .commit()
            .map_err(|e| CommitError::Unknown(e.to_string())),
    };
    for report in reports {
        // A panic in a job's `then` must not end the writer.
        let _ = catch_unwind(AssertUnwindSafe(|| report(outcome.clone())));
    }
    outcome
}

fn not_applied(error: rusqlite::Error) -> CommitError {
    CommitError::NotApplied(error.to_string())
}

/// Runs a job, and rolls its changes back if it failed. An error means that the transaction is unusable.
fn run_in_savepoint(
    transaction: &Transaction<'_>,
    job: Job,
) -> (Option<Report>, Option<rusqlite::Error>) {
    let sql = |text| {
        transaction
            .prepare_cached(text)
            .and_then(|mut s| s.execute([]))
    };
    if let Err(e) = sql("SAVEPOINT job") {
        job(Err(CommitError::NotApplied(e.to_string())));
        return (None, Some(e));
    }
    let Some(FinishedJob { succeeded, report }) = job(Ok(transaction)) else {
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
