use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use keywright_domain::ports::RepoError;
use keywright_sqlite::{OpenError, drain_batch};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::rows;
use super::schema::FORMAT;

/// How many threads read: as many as there are processors, within these bounds. With one, a long reading would hold up
/// all others.
const FEWEST_THREADS: usize = 2;
const MOST_THREADS: usize = 4;

/// How many readings may wait. Who comes then waits for room.
const QUEUE: usize = 1024;

/// How many readings share a transaction, so that a long one among them does not hold up too many.
const TOGETHER: usize = 32;

/// Runs in a transaction, or is told that there is none.
type Job = Box<dyn FnOnce(Result<&Connection, RepoError>) + Send>;

/// Threads that only read, each over a connection of its own; what waits is read together. A reading sees what was
/// committed before it was asked for. When the last clone is dropped, it waits until the connections are closed.
#[derive(Clone)]
pub(super) struct Readers {
    threads: Arc<Threads>,
}

struct Threads {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let mut all = Threads {
            jobs: Some(jobs),
            threads: Vec::new(),
        };
        let queue = Arc::new(Mutex::new(queue));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors.clamp(FEWEST_THREADS, MOST_THREADS) {
            let (conn, queue) = (FORMAT.open_reader(path)?, queue.clone());
            let started = thread::Builder::new()
                .name("locks-read".into())
                .spawn(move || read_all(&conn, &queue));
            let thread = started.map_err(|e| FORMAT.open_error(path, e))?;
            all.threads.push(thread);
        }
        Ok(Self {
            threads: Arc::new(all),
        })
    }

    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, RepoError> + Send + 'static,
    {
        let gone = |why: &str| RepoError::Unavailable(why.into());
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            // Whoever asked may have given up.
            if !tell.is_closed() {
                let _ = tell.send(conn.and_then(query));
            }
        });
        let jobs = self.threads.jobs.as_ref();
        let jobs = jobs.ok_or_else(|| gone("the store is closed"))?;
        let queued = jobs.send(job).await;
        queued.map_err(|_| gone("the store is closed"))?;
        told.await
            .unwrap_or_else(|_| Err(gone("the reading came to no end")))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Without a sender they end, after what is queued.
        self.jobs = None;
        let this = thread::current().id();
        for thread in self.threads.drain(..) {
            if thread.thread().id() != this {
                // Its panic was printed where it happened.
                let _ = thread.join();
            }
        }
    }
}

fn read_all(conn: &Connection, queue: &Mutex<mpsc::Receiver<Job>>) {
    let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // The queue is another thread's again as soon as this one has its batch.
        let Some(batch) = drain_batch(&mut queue(), TOGETHER) else {
            return;
        };
        let transaction = conn.unchecked_transaction().map_err(rows::unavailable);
        for job in batch {
            let conn = match &transaction {
                // An error may have ended it, and without it a reading would be of several moments.
                Ok(transaction) if transaction.is_autocommit() => Err(rows::ended()),
                Ok(transaction) => Ok(&**transaction),
                Err(error) => Err(error.clone()),
            };
            // A reading that panics must not take the thread along.
            let _ = catch_unwind(AssertUnwindSafe(|| job(conn)));
        }
    }
}
