//! Threads that read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use keywright_domain::ports::RepoError;
use keywright_sqlite::{JoinOnDrop, OpenError, drain_batch};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::schema::FORMAT;
use super::statement;

/// The bounds of the number of threads, which is otherwise the number of processors. With one thread, a long read would delay all
/// others.
const MIN_THREADS: usize = 2;
const MAX_THREADS: usize = 4;

/// The maximum number of queued reads. Further callers wait.
const MAX_QUEUED: usize = 1024;

/// The maximum number of reads that share a transaction, so that a long one among them does not delay too many.
const MAX_BATCH: usize = 32;

/// A read. Its argument is a connection in a transaction, or the reason why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, RepoError>) + Send>;

/// Threads with read-only connections. Queued reads share a transaction. A read sees all commits that were made before it was
/// queued. Dropping the last clone waits until the connections are closed.
#[derive(Clone)]
pub(super) struct Readers {
    jobs: mpsc::Sender<Job>,
    _threads: Arc<JoinOnDrop>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut threads = JoinOnDrop::default();
        let (jobs, queue) = mpsc::channel(MAX_QUEUED);
        let queue = Arc::new(Mutex::new(queue));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors.clamp(MIN_THREADS, MAX_THREADS) {
            let (conn, queue) = (FORMAT.open_reader(path)?, queue.clone());
            threads
                .spawn("locks-read", move || read_all(&conn, &queue))
                .map_err(|e| FORMAT.open_error(path, e))?;
        }
        Ok(Self {
            jobs,
            _threads: Arc::new(threads),
        })
    }

    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, RepoError> + Send + 'static,
    {
        let unavailable = |why: &str| RepoError::Unavailable(why.into());
        let (tx, rx) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            // The caller may no longer wait.
            if !tx.is_closed() {
                let _ = tx.send(conn.and_then(query));
            }
        });
        let queued = self.jobs.send(job).await;
        queued.map_err(|_| unavailable("the store is closed"))?;
        rx.await
            .unwrap_or_else(|_| Err(unavailable("the read has panicked")))
    }
}

fn read_all(conn: &Connection, queue: &Mutex<mpsc::Receiver<Job>>) {
    let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // The queue is locked only until this thread has a batch.
        let Some(batch) = drain_batch(&mut queue(), MAX_BATCH) else {
            return;
        };
        let transaction = conn.unchecked_transaction().map_err(statement::unavailable);
        for job in batch {
            let conn = match &transaction {
                // An error may have ended the transaction. Without one, a read could see several states of the store.
                Ok(transaction) if transaction.is_autocommit() => {
                    Err(statement::transaction_ended())
                }
                Ok(transaction) => Ok(&**transaction),
                Err(error) => Err(error.clone()),
            };
            // A read that panics must not end the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| job(conn)));
        }
    }
}
