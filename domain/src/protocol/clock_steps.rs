//! Finds out that the wall clock was set back, by comparing it with the monotonic clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::KeyWrites;
use crate::values::{Tick, Timestamp};

/// By how much the wall clock may lag behind the monotonic clock from one reading to the next, as it does while it is slewed.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Both clocks as they were read last.
pub(super) struct ClockSteps(Mutex<(Timestamp, Tick)>);

impl ClockSteps {
    pub(super) const fn new(now: Timestamp, tick: Tick) -> Self {
        Self(Mutex::new((now, tick)))
    }

    /// Whether the wall clock was set back since the last reading.
    fn read(&self, now: Timestamp, tick: Tick) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = tick.0.saturating_sub(last.1.0);
        let expected = last.0.after(elapsed);
        *last = (now, tick);
        now.after(TOLERANCE) < expected
    }
}

impl KeyWrites {
    /// Whether the wall clock was set back since this was asked last, or since the start. What maintenance was to do at
    /// moments by the earlier clock would be done late then, so read everything with [`KeyWrites::look_at_all`], which
    /// also gives those writes new moments. Ask every second.
    pub fn clock_was_set_back(&self) -> bool {
        let (now, tick) = (self.ports.clock.now(), self.ports.timer.tick());
        self.clock_steps.read(now, tick)
    }
}
