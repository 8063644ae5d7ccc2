//! The turns of one lock within this process: first come, first served, with bounded waiting.
//!
//! The store decides whose turn it is; this queue only spares it the polling of requests that would
//! wait for each other anyway.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::deadline::bounded;
use crate::ports::Timer;
use crate::values::{LockId, Tick};

/// Who may write to which lock at the moment.
pub(super) struct Turns {
    queues: Queues,
    max_waiting: usize,
}

#[derive(Clone, Default)]
struct Queues(Arc<Mutex<HashMap<LockId, Queue>>>);

/// Whoever is at the front has the turn.
#[derive(Default)]
struct Queue {
    places: VecDeque<Place>,
    given_out: u64,
}

struct Place {
    number: u64,
    waker: Option<Waker>,
}

/// The turn, or the wait for it, until it is dropped; the last one to leave removes the queue.
pub(super) struct Turn {
    lock: LockId,
    number: u64,
    queues: Queues,
}

impl Turns {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            queues: Queues::default(),
            max_waiting,
        }
    }

    /// Waits for the turn until `deadline`. `None`: it did not come, or too many wait already.
    pub(super) async fn take(
        &self,
        lock: LockId,
        timer: &dyn Timer,
        deadline: Tick,
    ) -> Option<Turn> {
        let turn = self.queue_up(lock)?;
        if !turn.has_come(None) {
            let coming = poll_fn(|cx| match turn.has_come(Some(cx.waker())) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            bounded(timer, deadline, pin!(coming)).await?;
        }
        Some(turn)
    }

    fn queue_up(&self, lock: LockId) -> Option<Turn> {
        let mut queues = self.queues.lock();
        let queue = queues.entry(lock).or_default();
        // One of the places is the holder's.
        if queue.places.len() > self.max_waiting {
            return None;
        }
        let number = queue.given_out;
        queue.given_out += 1;
        queue.places.push_back(Place {
            number,
            waker: None,
        });
        Some(Turn {
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

impl Turn {
    /// Whether it is at the front; else `waker` is told when it is.
    fn has_come(&self, waker: Option<&Waker>) -> bool {
        let mut queues = self.queues.lock();
        let places = queues.get_mut(&self.lock).map(|queue| &mut queue.places);
        let mut places = places.into_iter().flatten().enumerate();
        match places.find(|(_, place)| place.number == self.number) {
            Some((0, _)) => true,
            Some((_, place)) => {
                place.waker = waker.cloned();
                false
            }
            None => false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&self.lock) else {
            return;
        };
        queue.places.retain(|place| place.number != self.number);
        let next = queue.places.front_mut().and_then(|p| p.waker.take());
        if queue.places.is_empty() {
            queues.remove(&self.lock);
        }
        drop(queues);
        if let Some(next) = next {
            next.wake();
        }
    }
}
