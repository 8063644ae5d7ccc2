use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{Tick, Timestamp};
use keywright_domain::ports::{Clock, IdGenerator, Timer};

/// A wall clock that stands still until a test moves it. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(now.as_millis())))
    }

    /// Sets the clock to `now`, which may be earlier than the current time.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Sets the clock forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().after(span));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A monotonic clock that stands still until a test moves it. Clones share the time and the sleepers.
#[derive(Clone, Default)]
pub struct ManualTimer(Arc<Mutex<Sleepers>>);

#[derive(Default)]
struct Sleepers {
    now: Duration,
    waiting: BTreeMap<Tick, Vec<Waker>>,
}

impl ManualTimer {
    /// Sets the clock forward by `span` and wakes the sleepers that are due.
    pub fn advance(&self, span: Duration) {
        let woken = {
            let mut sleepers = self.sleepers();
            sleepers.now += span;
            let still_waiting = Tick(sleepers.now + Duration::from_nanos(1));
            let later = sleepers.waiting.split_off(&still_waiting);
            std::mem::replace(&mut sleepers.waiting, later)
        };
        woken.into_values().flatten().for_each(Waker::wake);
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Timer for ManualTimer {
    fn tick(&self) -> Tick {
        Tick(self.sleepers().now)
    }

    async fn sleep_until(&self, moment: Tick) {
        poll_fn(|cx| {
            let mut sleepers = self.sleepers();
            if moment.0 <= sleepers.now {
                return Poll::Ready(());
            }
            sleepers
                .waiting
                .entry(moment)
                .or_default()
                .push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Generates the ids 1, 2, 3 and so on. Clones share the counter.
#[derive(Clone, Debug, Default)]
pub struct SequentialIds(Arc<AtomicU64>);

impl IdGenerator for SequentialIds {
    fn next_id(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}
