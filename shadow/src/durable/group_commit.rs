use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait. Who comes then waits for room.
const QUEUE: usize = 1024;

/// How many jobs share a commit. With more of them, the pages that they touch outgrow the caches of a processor.
const TOGETHER: usize = 96;

/// One writer over one connection, which commits everything that waits in one transaction.
///
/// A commit costs a sync of the disk, whatever it holds. Clones share the writer. When the last one is
/// dropped, it waits until the writer has done what was queued and has closed the connection.
#[derive(Clone)]
pub struct GroupCommit {
    writer: Arc<Writer>,
}

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It changed nothing.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// It may have happened: the commit itself failed. The writer does no more after that, because what
    /// the file holds can only be known by opening it again.
    #[error("not known whether applied: {0}")]
    Unknown(String),
}

/// What is left of a job after it ran: telling its outcome, once it is known whether it was committed.
type Answer = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Runs in a transaction, or is told that there is none.
type Job = Box<dyn FnOnce(Result<&Transaction<'_>, CommitError>) -> Option<Ran> + Send>;

struct Ran {
    keep: bool,
    answer: Answer,
}

struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl GroupCommit {
    /// Starts the writer. The caller has opened the connection and set it up (WAL, `synchronous`).
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(name: &str, conn: Connection) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(conn, queue))?;
        let writer = Writer {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        Ok(Self {
            writer: Arc::new(writer),
        })
    }

    /// Runs a job in the next transaction and answers after its commit. Jobs run in the order in which
    /// they were queued and see what those before them did. One that returns `Err` or panics has its own
    /// changes undone and leaves the others alone. It must not end the transaction itself.
    ///
    /// A job that is queued is done also when the future is dropped.
    ///
    /// # Errors
    /// The commit's; within, the job's own.
    pub async fn run<T, E, F>(&self, job: F) -> Result<Result<T, E>, CommitError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run_then(job, |_| ()).await
    }

    /// Waits until the writer takes no more jobs, because a commit failed: the file has to be opened again.
    pub async fn ended(&self) {
        if let Some(jobs) = &self.writer.jobs {
            jobs.closed().await;
        }
    }

    /// As [`run`](Self::run); `then` sees what a job has done, on the writer's thread, after the commit
    /// and before the answer, in the order of the jobs and also when nobody waits for the answer. It is
    /// not called for a job that failed or was not committed.
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
        let closed = || CommitError::NotApplied("the writer has ended".into());
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            // That nobody waits for an answer any more is no error.
            let tell = move |outcome| drop(tell.send(outcome));
            let outcome = match transaction {
                Ok(transaction) => catch_unwind(AssertUnwindSafe(|| job(transaction))),
                Err(e) => {
                    tell(Err(e));
                    return None;
                }
            };
            let Ok(outcome) = outcome else {
                let answer = |_| tell(Err(CommitError::NotApplied("the job panicked".into())));
                return Some(Ran {
                    keep: false,
                    answer: Box::new(answer),
                });
            };
            Some(Ran {
                keep: outcome.is_ok(),
                answer: Box::new(move |committed| {
                    if let (Ok(()), Ok(done)) = (&committed, &outcome) {
                        then(done);
                    }
                    // A job that failed left nothing to commit.
                    let committed = if outcome.is_err() { Ok(()) } else { committed };
                    tell(committed.map(|()| outcome));
                }),
            })
        });
        let jobs = self.writer.jobs.as_ref().ok_or_else(closed)?;
        jobs.send(job).await.map_err(|_| closed())?;
        told.await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the writer was lost".into())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the writer ends, after what is queued.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // Its panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

fn write_all(mut conn: Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(batch) = drain_batch(&mut queue, TOGETHER) {
        if let Err(CommitError::Unknown(text)) = write(&mut conn, batch) {
            queue.close();
            while let Some(job) = queue.blocking_recv() {
                job(Err(CommitError::NotApplied(format!(
                    "an earlier commit failed: {text}"
                ))));
            }
        }
    }
}

/// What waits in a queue, at most so much, as soon as something does; `None`: nothing will any more.
///
/// Whoever is woken runs before those who still have something to bring, where they share a processor. So it lets them
/// go first for as long as that brings more: many together cost less than one by one.
pub fn drain_batch<T>(queue: &mut mpsc::Receiver<T>, most: usize) -> Option<Vec<T>> {
    let mut all = vec![queue.blocking_recv()?];
    let mut before = 0;
    while before < all.len() {
        before = all.len();
        thread::yield_now();
        while all.len() < most
            && let Ok(next) = queue.try_recv()
        {
            all.push(next);
        }
    }
    Some(all)
}

fn write(conn: &mut Connection, batch: Vec<Job>) -> Result<(), CommitError> {
    let transaction = match Transaction::new(conn, TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(e) => {
            let e = CommitError::NotApplied(e.to_string());
            for job in batch {
                job(Err(e.clone()));
            }
            return Err(e);
        }
    };
    let mut answers = Vec::with_capacity(batch.len());
    let mut broken = None;
    for job in batch {
        match &broken {
            None => match run_one(&transaction, job) {
                Ok(answer) => answers.extend(answer),
                Err((e, answer)) => {
                    answers.extend(answer);
                    broken = Some(CommitError::NotApplied(e.to_string()));
                }
            },
            Some(e) => drop(job(Err(e.clone()))),
        }
    }
    // A savepoint that cannot be undone would carry a failed job's changes along: nothing is kept then.
    let outcome = match broken {
        Some(e) => match transaction.rollback() {
            Ok(()) => Err(e),
            Err(e) => Err(CommitError::Unknown(e.to_string())),
        },
        None => transaction
            .commit()
            .map_err(|e| CommitError::Unknown(e.to_string())),
    };
    for answer in answers {
        // What a subscriber of the outcome does must not take the writer along.
        let _ = catch_unwind(AssertUnwindSafe(|| answer(outcome.clone())));
    }
    outcome
}

fn run_one(
    transaction: &Transaction<'_>,
    job: Job,
) -> Result<Option<Answer>, (rusqlite::Error, Option<Answer>)> {
    let sql = |text| {
        transaction
            .prepare_cached(text)
            .and_then(|mut s| s.execute([]))
    };
    if let Err(e) = sql("SAVEPOINT job") {
        job(Err(CommitError::NotApplied(e.to_string())));
        return Err((e, None));
    }
    let Some(Ran { keep, answer }) = job(Ok(transaction)) else {
        return Ok(None);
    };
    let undone = if keep { Ok(0) } else { sql("ROLLBACK TO job") };
    match undone.and_then(|_| sql("RELEASE job")) {
        Ok(_) => Ok(Some(answer)),
        Err(e) => Err((e, Some(answer))),
    }
}
