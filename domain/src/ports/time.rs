use async_trait::async_trait;

use crate::model::{Tick, Timestamp};

/// The wall clock: for the times of events, and for times to live. It MAY be set forward or back at any time.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// A monotonic clock with timers: for deadlines and pauses. Its ticks MUST NOT decrease, and MUST NOT change when the wall clock is
/// set.
#[async_trait]
pub trait Timer: Send + Sync {
    /// The current tick.
    fn tick(&self) -> Tick;

    /// Waits until the tick `moment`. It returns at once if that tick has passed.
    async fn sleep_until(&self, moment: Tick);
}

/// Generates ids of 128 bits. An id MUST be unique across all processes and restarts: at least 74 of its bits are random or
/// certainly unused, the low 32 bits among them, which are also the domain's source of jitter.
pub trait IdGenerator: Send + Sync {
    /// Generates the next id.
    fn next_id(&self) -> u128;
}
