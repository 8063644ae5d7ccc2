//! Many callers, one statement: what comes while statements are under way waits, and goes together in the next one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

/// How many statements are under way at once: more than one, so that one whose connection is lost does not hold up all callers. With
/// more, fewer callers come together in each, and the database has as many more statements to run.
const AT_ONCE: usize = 4;

/// How many callers share a statement.
const MOST: usize = 64;

/// How many callers there may be. Who comes then waits for room.
const CALLERS: usize = 1024;

type Run<J, A> = dyn Fn(Vec<J>) -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> + Send + Sync;

/// Takes jobs, and has them run together. Clones share it. A job that has begun goes on when its caller gives up.
pub(super) struct Batcher<J, A>(Arc<Shared<J, A>>);

struct Shared<J, A> {
    room: Semaphore,
    state: Mutex<State<J, A>>,
    goes_with: fn(&J, &J) -> bool,
    run: Box<Run<J, A>>,
}

struct State<J, A> {
    waiting: VecDeque<Waiting<J, A>>,
    under_way: usize,
}

struct Waiting<J, A> {
    job: J,
    tell: oneshot::Sender<A>,
}

impl<J, A> Clone for Batcher<J, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Send + 'static, A: Send + 'static> Batcher<J, A> {
    /// `run` answers jobs in their order. Those that do not go with each other run one after the other.
    pub(super) fn new<F>(
        goes_with: fn(&J, &J) -> bool,
        run: impl Fn(Vec<J>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        Self(Arc::new(Shared {
            room: Semaphore::new(CALLERS),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                under_way: 0,
            }),
            goes_with,
            run: Box::new(move |jobs| Box::pin(run(jobs))),
        }))
    }

    /// What comes of a job. `None`: it came to no end. It must be called in a runtime of tokio.
    pub(super) async fn ask(&self, job: J) -> Option<A> {
        let _room = self.0.room.acquire().await.ok()?;
        let (tell, told) = oneshot::channel();
        if self.0.take_in(Waiting { job, tell }) {
            tokio::spawn(work(self.0.clone()));
        }
        told.await.ok()
    }
}

impl<J, A> Shared<J, A> {
    fn state(&self) -> MutexGuard<'_, State<J, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more is to work.
    fn take_in(&self, waiting: Waiting<J, A>) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        let one_more = state.under_way < AT_ONCE;
        state.under_way += usize::from(one_more);
        one_more
    }

    /// What goes in the next statement. `None`: nothing waits, and one less works.
    fn next(&self) -> Option<(Vec<J>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state();
        let (mut jobs, mut answers) = (Vec::new(), Vec::new());
        let mut passed_over = Vec::new();
        while jobs.len() < MOST
            && let Some(next) = state.waiting.pop_front()
        {
            if next.tell.is_closed() {
                // Who has given up before anything was sent wants nothing more.
            } else if jobs.iter().all(|job| (self.goes_with)(job, &next.job)) {
                jobs.push(next.job);
                answers.push(next.tell);
            } else {
                passed_over.push(next);
            }
        }
        for first in passed_over.into_iter().rev() {
            state.waiting.push_front(first);
        }
        if jobs.is_empty() {
            state.under_way -= 1;
            return None;
        }
        Some((jobs, answers))
    }
}

/// Works until nothing waits.
async fn work<J: Send + 'static, A: Send + 'static>(shared: Arc<Shared<J, A>>) {
    while let Some((jobs, answers)) = shared.next() {
        // In a task of its own, so that one that panics does not end the work on what waits.
        let outcomes = tokio::spawn((shared.run)(jobs)).await.unwrap_or_default();
        for (tell, outcome) in answers.into_iter().zip(outcomes) {
            // That nobody waits for an answer any more is no error.
            let _ = tell.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    /// Answers each job with all that ran in its statement, as soon as there is a permit for it.
    fn noted(permits: Arc<Semaphore>) -> Batcher<u32, Vec<u32>> {
        Batcher::new(
            |one, other| one != other,
            move |jobs| {
                let permits = permits.clone();
                async move {
                    permits.acquire().await.expect("it is open").forget();
                    assert!(!jobs.contains(&13), "as it was asked");
                    vec![jobs.clone(); jobs.len()]
                }
            },
        )
    }

    /// Jobs that keep all busy.
    fn busy() -> Vec<u32> {
        (100..).take(AT_ONCE).collect()
    }

    async fn asked(batcher: &Batcher<u32, Vec<u32>>, jobs: &[u32]) -> JoinSet<Vec<u32>> {
        let mut asking = JoinSet::new();
        for job in jobs.iter().copied() {
            let batcher = batcher.clone();
            asking.spawn(async move { batcher.ask(job).await.expect("an answer") });
            tokio::task::yield_now().await;
        }
        asking
    }

    #[tokio::test]
    async fn what_waits_goes_together_and_what_does_not_fit_goes_next() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = noted(permits.clone());
        let alone = asked(&batcher, &busy()).await;
        let waiting = asked(&batcher, &[3, 4, 3, 5, 3]).await;
        permits.add_permits(AT_ONCE + 3);
        let alone = alone.join_all().await;
        assert!(alone.iter().all(|batcher| batcher.len() == 1));
        let mut answers = waiting.join_all().await;
        answers.sort();
        let then = [
            vec![3],
            vec![3],
            vec![3, 4, 5],
            vec![3, 4, 5],
            vec![3, 4, 5],
        ];
        assert_eq!(answers, then);
        tokio::task::yield_now().await;
        assert_eq!(batcher.0.state().under_way, 0);
    }

    #[tokio::test]
    async fn who_gives_up_before_it_begins_is_left_out() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = noted(permits.clone());
        let alone = asked(&batcher, &busy()).await;
        drop(asked(&batcher, &[3]).await);
        let last = asked(&batcher, &[4]).await;
        tokio::task::yield_now().await;
        permits.add_permits(AT_ONCE + 1);
        assert_eq!(last.join_all().await, [[4]]);
        alone.join_all().await;
    }

    #[tokio::test]
    async fn one_that_panics_takes_nobody_else_along() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = noted(permits.clone());
        let mut asking = JoinSet::new();
        for _ in 0..AT_ONCE {
            let batcher = batcher.clone();
            asking.spawn(async move { batcher.ask(13).await });
            tokio::task::yield_now().await;
        }
        let waiting = asked(&batcher, &[1]).await;
        permits.add_permits(AT_ONCE + 1);
        assert!(asking.join_all().await.iter().all(Option::is_none));
        assert_eq!(waiting.join_all().await, [[1]]);
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_it() {
        let permits = Arc::new(Semaphore::new(0));
        let batcher = noted(permits.clone());
        let jobs: Vec<u32> = (100..).take(CALLERS + 1).collect();
        let asking = asked(&batcher, &jobs).await;
        let waiting = batcher.0.state().waiting.len();
        assert_eq!(waiting, CALLERS - AT_ONCE);
        permits.add_permits(jobs.len());
        assert_eq!(asking.join_all().await.len(), jobs.len());
    }
}
