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

type Slots = Mutex<HashMap<LockId, Arc<AsyncMutex<()>>>>;

/// Who may write to which lock at the moment.
pub(super) struct Turns {
    slots: Arc<Slots>,
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
    slots: Arc<Slots>,
}

impl Turns {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            slots: Arc::default(),
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
        let seat = Seat {
            lock,
            slots: self.slots.clone(),
        };
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.entry(lock).or_default();
            // The map and the holder have a reference each; every other one is a waiter.
            if Arc::strong_count(slot) > self.max_waiting + 1 {
                return None;
            }
            slot.clone()
        };
        let guard = match slot.try_lock_arc() {
            Some(guard) => guard,
            None => bounded(timer, deadline, slot.lock_arc()).await?,
        };
        Some(Turn {
            _guard: guard,
            _seat: seat,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots
            .get(&self.lock)
            .is_some_and(|slot| Arc::strong_count(slot) == 1)
        {
            slots.remove(&self.lock);
        }
    }
}
