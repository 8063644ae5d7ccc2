//! Detection of steps of the wall clock, by comparison with the monotonic clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::{Tick, Timestamp};

/// How far the wall clock may lag behind the monotonic clock between two readings. A clock that is slewed lags by less.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The last reading of both clocks.
pub(super) struct ClockSteps(Mutex<(Timestamp, Tick)>);

impl ClockSteps {
    pub(super) const fn new(now: Timestamp, tick: Tick) -> Self {
        Self(Mutex::new((now, tick)))
    }

    /// Returns whether the wall clock was set back since the last reading.
    pub(super) fn read(&self, now: Timestamp, tick: Tick) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = tick.0.saturating_sub(last.1.0);
        let expected = last.0.after(elapsed);
        *last = (now, tick);
        now.after(TOLERANCE) < expected
    }
}
