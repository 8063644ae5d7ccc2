//! The turns of one lock within this process: first come, first served, with bounded waiting.
//!
//! The store decides whose turn it is; this queue only spares it the polling of requests that would
//! wait for each other anyway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_lock::{Mutex as AsyncMutex, MutexGuardArc};

use super::deadline::bounded;
use crate::ports::Timer;
use crate::values::{LockId, Tick};

type Queues = Mutex<HashMap<LockId, Queue>>;

/// Who holds the turn of one lock, and who waits for it.
#[derive(Default)]
struct Queue {
    turn: Arc<AsyncMutex<()>>,
    seats: usize,
}

/// Who may write to which lock at the moment.
pub(super) struct Turns {
    queues: Arc<Queues>,
    max_waiting: usize,
}

/// The turn, until it is dropped. The guard goes first, so that the seat sees who is left.
pub(super) struct Turn {
    _guard: MutexGuardArc<()>,
    _seat: Seat,
}

/// A place in the queue of one lock; the last one to leave removes the queue.
struct Seat {
    lock: LockId,
    queues: Arc<Queues>,
}

impl Turns {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            queues: Arc::default(),
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
        let (seat, turn) = self.queue_up(lock)?;
        let guard = match turn.try_lock_arc() {
            Some(guard) => guard,
            None => bounded(timer, deadline, turn.lock_arc()).await?,
        };
        Some(Turn {
            _guard: guard,
            _seat: seat,
        })
    }

    fn queue_up(&self, lock: LockId) -> Option<(Seat, Arc<AsyncMutex<()>>)> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(lock).or_default();
        // One of the seats is the holder's.
        if queue.seats > self.max_waiting {
            return None;
        }
        queue.seats += 1;
        Some((
            Seat {
                lock,
                queues: self.queues.clone(),
            },
            queue.turn.clone(),
        ))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&self.lock) {
            queue.seats -= 1;
            if queue.seats == 0 {
                queues.remove(&self.lock);
            }
        }
    }
}
