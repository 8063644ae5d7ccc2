//! Batches jobs of many callers: jobs that arrive while the maximum number of runs is in progress wait, and share the next run.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

/// The maximum number of concurrent runs. With a single one, a lost connection would block all callers. With more than
/// four, batches would be smaller and the database would have more statements to execute.
const MAX_RUNNING: usize = 4;

/// The maximum number of jobs in a batch.
const MAX_BATCH: usize = 64;

/// The maximum number of callers whose jobs run or are queued. Further callers wait.
const MAX_JOBS: usize = 1024;

type Run<J, R> = dyn Fn(Vec<J>) -> Pin<Box<dyn Future<Output = Vec<R>> + Send>> + Send + Sync;

/// Runs jobs in batches. Clones share the queue. A running job continues if its caller no longer waits.
pub(super) struct Batcher<J, R>(Arc<Shared<J, R>>);

struct Shared<J, R> {
    capacity: Semaphore,
    state: Mutex<State<J, R>>,
    is_compatible: fn(&J, &J) -> bool,
    run: Box<Run<J, R>>,
}

struct State<J, R> {
    queue: VecDeque<QueuedJob<J, R>>,
    running: usize,
}

struct QueuedJob<J, R> {
    job: J,
    tx: oneshot::Sender<R>,
}

impl<J, R> Clone for Batcher<J, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Send + 'static, R: Send + 'static> Batcher<J, R> {
    /// `run` returns the results in the order of its jobs. Jobs that are not compatible are not in one batch.
    pub(super) fn new<F>(
        is_compatible: fn(&J, &J) -> bool,
        run: impl Fn(Vec<J>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        Self(Arc::new(Shared {
            capacity: Semaphore::new(MAX_JOBS),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                running: 0,
            }),
            is_compatible,
            run: Box::new(move |jobs| Box::pin(run(jobs))),
        }))
    }

    /// Runs a job in a batch. `None`: the batch panicked or was dropped. It must be called in a tokio runtime.
    pub(super) async fn run(&self, job: J) -> Option<R> {
        let _permit = self.0.capacity.acquire().await.ok()?;
        let (tx, rx) = oneshot::channel();
        if self.0.enqueue(QueuedJob { job, tx }) {
            tokio::spawn(run_batches(self.0.clone()));
        }
        rx.await.ok()
    }
}

impl<J, R> Shared<J, R> {
    fn state(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and returns whether the caller has to start one more task that runs batches.
    fn enqueue(&self, job: QueuedJob<J, R>) -> bool {
        let mut state = self.state();
        state.queue.push_back(job);
        let starts = state.running < MAX_RUNNING;
        state.running += usize::from(starts);
        starts
    }

    /// The next batch, with the channels for its results. `None`: the queue is empty, and the calling task has to end.
    fn next_batch(&self) -> Option<(Vec<J>, Vec<oneshot::Sender<R>>)> {
        let mut state = self.state();
        let (mut jobs, mut channels) = (Vec::new(), Vec::new());
        let mut incompatible = Vec::new();
        while jobs.len() < MAX_BATCH
            && let Some(next) = state.queue.pop_front()
        {
            if next.tx.is_closed() {
                // The caller no longer waits, and the job has not started.
            } else if jobs.iter().all(|job| (self.is_compatible)(job, &next.job)) {
                jobs.push(next.job);
                channels.push(next.tx);
            } else {
                incompatible.push(next);
            }
        }
        for job in incompatible.into_iter().rev() {
            state.queue.push_front(job);
        }
        if jobs.is_empty() {
            state.running -= 1;
            return None;
        }
        Some((jobs, channels))
    }
}

/// Runs batches until the queue is empty.
async fn run_batches<J: Send + 'static, R: Send + 'static>(shared: Arc<Shared<J, R>>) {
    while let Some((jobs, channels)) = shared.next_batch() {
        // A separate task, so that a panic does not end this one.
        let results = tokio::spawn((shared.run)(jobs)).await.unwrap_or_default();
        for (tx, result) in channels.into_iter().zip(results) {
            // It fails if the caller no longer waits.
            let _ = tx.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    /// Returns to each job all jobs of its batch. A batch ends when it gets a permit.
    fn batch_recorder(permits: Arc<Semaphore>) -> Batcher<u32, Vec<u32>> {
        Batcher::new(
            |one, other| one != other,
            move |jobs| {
                let permits = permits.clone();
                async move {
                    permits
                        .acquire()
                        .await
                        .expect("the semaphore is open")
                        .forget();
                    assert!(!jobs.contains(&13), "the job panics");
                    vec![jobs.clone(); jobs.len()]
                }
            },
        )
    }

    /// As many jobs as there are concurrent runs.
    fn first_jobs() -> Vec<u32> {
        (100..).take(MAX_RUNNING).collect()
    }

    async fn start(batcher: &Batcher<u32, Vec<u32>>, jobs: &[u32]) -> JoinSet<Vec<u32>> {
        let mut running = JoinSet::new();
        for job in jobs.iter().copied() {
            let batcher = batcher.clone();
            running.spawn(async move { batcher.run(job).await.expect("a result") });
            tokio::task::yield_now().await;
        }
        running
    }

    #[tokio::test]
    async fn queued_jobs_share_a_batch_if_they_are_compatible() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = batch_recorder(permits.clone());
        let alone = start(&batcher, &first_jobs()).await;
        let waiting = start(&batcher, &[3, 4, 3, 5, 3]).await;
        permits.add_permits(MAX_RUNNING + 3);
        let alone = alone.join_all().await;
        assert!(alone.iter().all(|batch| batch.len() == 1));
        let mut batches = waiting.join_all().await;
        batches.sort();
        let expected = [
            vec![3],
            vec![3],
            vec![3, 4, 5],
            vec![3, 4, 5],
            vec![3, 4, 5],
        ];
        assert_eq!(batches, expected);
        tokio::task::yield_now().await;
        assert_eq!(batcher.0.state().running, 0);
    }

    #[tokio::test]
    async fn skips_a_queued_job_whose_caller_no_longer_waits() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = batch_recorder(permits.clone());
        let alone = start(&batcher, &first_jobs()).await;
        drop(start(&batcher, &[3]).await);
        let last = start(&batcher, &[4]).await;
        tokio::task::yield_now().await;
        permits.add_permits(MAX_RUNNING + 1);
        assert_eq!(last.join_all().await, [[4]]);
        alone.join_all().await;
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_batch() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = batch_recorder(permits.clone());
        let mut running = JoinSet::new();
        for _ in 0..MAX_RUNNING {
            let batcher = batcher.clone();
            running.spawn(async move { batcher.run(13).await });
            tokio::task::yield_now().await;
        }
        let waiting = start(&batcher, &[1]).await;
        permits.add_permits(MAX_RUNNING + 1);
        assert!(running.join_all().await.iter().all(Option::is_none));
        assert_eq!(waiting.join_all().await, [[1]]);
    }

    #[tokio::test]
    async fn bounds_the_number_of_jobs() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = batch_recorder(permits.clone());
        let jobs: Vec<u32> = (100..).take(MAX_JOBS + 1).collect();
        let running = start(&batcher, &jobs).await;
        let waiting = batcher.0.state().queue.len();
        assert_eq!(waiting, MAX_JOBS - MAX_RUNNING);
        permits.add_permits(jobs.len());
        assert_eq!(running.join_all().await.len(), jobs.len());
    }
}
