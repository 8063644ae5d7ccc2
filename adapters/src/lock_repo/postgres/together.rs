//! Many callers, one statement: what comes while statements are under way waits, and goes together in the next one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many statements are under way at once: more than one, so that one whose connection is lost does not hold up all callers. With
/// more, fewer callers come together in each, and each costs the database nearly as much as one with many.
const AT_ONCE: usize = 4;

/// How many callers share a statement.
const MOST: usize = 64;

/// How many may wait for one.
const QUEUE: usize = 1024;

type Run<J, A> = dyn Fn(Vec<J>) -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> + Send + Sync;

/// Takes jobs, and has them run together. Clones share it. A job goes on when its caller gives up.
pub(super) struct Together<J, A>(Arc<Shared<J, A>>);

struct Shared<J, A> {
    state: Mutex<State<J, A>>,
    goes_with: fn(&J, &J) -> bool,
    run: Box<Run<J, A>>,
}

struct State<J, A> {
    waiting: VecDeque<(J, oneshot::Sender<A>)>,
    under_way: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nothing was done.
    #[error("too many statements wait already")]
    Full,
    #[error("the statement came to no end")]
    Lost,
}

impl<J, A> Clone for Together<J, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Send + 'static, A: Send + 'static> Together<J, A> {
    /// `run` answers jobs in their order. One that does not go with each before it waits for the next statement.
    pub(super) fn new<F>(
        goes_with: fn(&J, &J) -> bool,
        run: impl Fn(Vec<J>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                under_way: 0,
            }),
            goes_with,
            run: Box::new(move |jobs| Box::pin(run(jobs))),
        }))
    }

    /// What comes of a job. It must be called in a runtime of tokio.
    ///
    /// # Errors
    /// Nothing does.
    pub(super) async fn ask(&self, job: J) -> Result<A, NoAnswer> {
        let (tell, told) = oneshot::channel();
        if self.0.take_in(job, tell)? {
            tokio::spawn(Worker(Some(self.0.clone())).work());
        }
        told.await.map_err(|_| NoAnswer::Lost)
    }
}

impl<J, A> Shared<J, A> {
    fn state(&self) -> MutexGuard<'_, State<J, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more is to work.
    fn take_in(&self, job: J, tell: oneshot::Sender<A>) -> Result<bool, NoAnswer> {
        let mut state = self.state();
        if state.waiting.len() >= QUEUE {
            return Err(NoAnswer::Full);
        }
        state.waiting.push_back((job, tell));
        let one_more = state.under_way < AT_ONCE;
        state.under_way += usize::from(one_more);
        Ok(one_more)
    }

    /// What goes in the next statement. `None`: nothing waits, and one less works.
    fn next(&self) -> Option<(Vec<J>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state();
        let (mut jobs, mut answers) = (Vec::new(), Vec::new());
        while jobs.len() < MOST
            && let Some((next, tell)) = state.waiting.front()
        {
            // Who has given up before anything was sent wants nothing more.
            let given_up = tell.is_closed();
            if !given_up && !jobs.iter().all(|job| (self.goes_with)(job, next)) {
                break;
            }
            if let Some((job, tell)) = state.waiting.pop_front()
                && !given_up
            {
                jobs.push(job);
                answers.push(tell);
            }
        }
        if jobs.is_empty() {
            state.under_way -= 1;
            return None;
        }
        Some((jobs, answers))
    }
}

/// One of those that work, until nothing waits.
struct Worker<J, A>(Option<Arc<Shared<J, A>>>);

impl<J, A> Worker<J, A> {
    async fn work(mut self) {
        while let Some(shared) = &self.0 {
            let Some((jobs, answers)) = shared.next() else {
                self.0 = None;
                return;
            };
            let outcomes = (shared.run)(jobs).await;
            for (tell, outcome) in answers.into_iter().zip(outcomes) {
                // That nobody waits for an answer any more is no error.
                let _ = tell.send(outcome);
            }
        }
    }
}

impl<J, A> Drop for Worker<J, A> {
    fn drop(&mut self) {
        // It ends early where a job panicked, or the runtime ends.
        if let Some(shared) = &self.0 {
            shared.state().under_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    /// Answers each job with all that ran in its statement, as soon as there is a permit for it.
    fn noted(permits: Arc<Semaphore>) -> Together<u32, Vec<u32>> {
        Together::new(
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

    async fn asked(together: &Together<u32, Vec<u32>>, jobs: &[u32]) -> JoinSet<Vec<u32>> {
        let mut asking = JoinSet::new();
        for job in jobs.iter().copied() {
            let together = together.clone();
            asking.spawn(async move { together.ask(job).await.expect("an answer") });
            tokio::task::yield_now().await;
        }
        asking
    }

    #[tokio::test]
    async fn what_waits_goes_together_and_what_does_not_fit_goes_next() {
        let permits = Arc::new(Semaphore::new(0));
        let together = noted(permits.clone());
        let alone = asked(&together, &busy()).await;
        let waiting = asked(&together, &[3, 4, 3, 5]).await;
        permits.add_permits(AT_ONCE + 2);
        let alone = alone.join_all().await;
        assert!(alone.iter().all(|together| together.len() == 1));
        let mut answers = waiting.join_all().await;
        answers.sort();
        assert_eq!(answers, [[3, 4], [3, 4], [3, 5], [3, 5]]);
        tokio::task::yield_now().await;
        assert_eq!(together.0.state().under_way, 0);
    }

    #[tokio::test]
    async fn who_gives_up_before_it_begins_is_left_out() {
        let permits = Arc::new(Semaphore::new(0));
        let together = noted(permits.clone());
        let alone = asked(&together, &busy()).await;
        drop(asked(&together, &[3]).await);
        let last = asked(&together, &[4]).await;
        tokio::task::yield_now().await;
        permits.add_permits(AT_ONCE + 1);
        assert_eq!(last.join_all().await, [[4]]);
        alone.join_all().await;
    }

    #[tokio::test]
    async fn one_that_panics_takes_nobody_else_along() {
        let permits = Arc::new(Semaphore::new(99));
        let together = noted(permits);
        for _ in 0..2 * AT_ONCE {
            let lost = together.ask(13).await;
            assert!(matches!(lost, Err(NoAnswer::Lost)), "{lost:?}");
        }
        assert_eq!(together.ask(1).await.expect("an answer"), [1]);
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let permits = Arc::new(Semaphore::new(0));
        let together = noted(permits.clone());
        let jobs: Vec<u32> = (100..).take(AT_ONCE + QUEUE).collect();
        let asking = asked(&together, &jobs).await;
        let refused = together.ask(1).await;
        assert!(matches!(refused, Err(NoAnswer::Full)), "{refused:?}");
        permits.add_permits(99);
        assert_eq!(asking.join_all().await.len(), jobs.len());
    }
}
