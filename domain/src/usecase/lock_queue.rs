//! Queues of the requests that write to the same lock within this process: first come, first served, and bounded.
//!
//! The store serializes the writes of a lock. These queues only spare it the polling of requests that would wait for each
//! other anyway.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::deadline::bounded;
use crate::model::{LockId, Tick};
use crate::ports::Timer;

/// The queues of all locks that are being written to.
pub(super) struct LockQueues {
    queues: Queues,
    max_waiting: usize,
}

#[derive(Clone, Default)]
struct Queues(Arc<Mutex<HashMap<LockId, Queue>>>);

/// The request at the front may proceed.
#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_number: u64,
}

struct Waiter {
    number: u64,
    waker: Option<Waker>,
}

/// A place in a lock's queue, and at its front the permission to write. Dropping it leaves the queue; the last place to be
/// dropped removes the queue.
pub(super) struct QueuePermit {
    lock: LockId,
    number: u64,
    queues: Queues,
}

impl LockQueues {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            queues: Queues::default(),
            max_waiting,
        }
    }

    /// Waits in the lock's queue until `deadline`. `None`: the deadline passed, or the queue is full.
    pub(super) async fn acquire(
        &self,
        lock: LockId,
        timer: &dyn Timer,
        deadline: Tick,
    ) -> Option<QueuePermit> {
        let permit = self.enqueue(lock)?;
        if !permit.is_first(None) {
            let first = poll_fn(|cx| match permit.is_first(Some(cx.waker())) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            bounded(timer, deadline, pin!(first)).await?;
        }
        Some(permit)
    }

    fn enqueue(&self, lock: LockId) -> Option<QueuePermit> {
        let mut queues = self.queues.lock();
        let queue = queues.entry(lock).or_default();
        // The front is held, not waiting: hence one more than may wait.
        if queue.waiters.len() > self.max_waiting {
            return None;
        }
        let number = queue.next_number;
        queue.next_number += 1;
        queue.waiters.push_back(Waiter {
            number,
            waker: None,
        });
        Some(QueuePermit {
            lock,
            number,
            queues: self.queues.clone(),
        })
    }
}

impl Queues {
    fn lock(&self) -> MutexGuard<'_, HashMap<LockId, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuePermit {
    /// Whether it is at the front; otherwise `waker` is woken when it is.
    fn is_first(&self, waker: Option<&Waker>) -> bool {
        let mut queues = self.queues.lock();
        let waiters = queues.get_mut(&self.lock).map(|queue| &mut queue.waiters);
        let mut waiters = waiters.into_iter().flatten().enumerate();
        match waiters.find(|(_, waiter)| waiter.number == self.number) {
            Some((0, _)) => true,
            Some((_, waiter)) => {
                waiter.waker = waker.cloned();
                false
            }
            None => false,
        }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&self.lock) else {
            return;
        };
        queue.waiters.retain(|waiter| waiter.number != self.number);
        let next = queue.waiters.front_mut().and_then(|w| w.waker.take());
        if queue.waiters.is_empty() {
            queues.remove(&self.lock);
        }
        drop(queues);
        if let Some(next) = next {
            next.wake();
        }
    }
}
