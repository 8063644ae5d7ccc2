use async_trait::async_trait;

use crate::model::{Tick, Timestamp};

/// The wall clock: for the times of events, and for times to live. It may be set forward or back at any time.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// A monotonic clock with timers: for deadlines and pauses. Setting the wall clock does not change its ticks.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `ticks_do_not_decrease`: a tick MUST NOT be before one that was returned earlier.
/// 2. `sleep_ends_at_its_moment`: a sleep MUST NOT end before its moment, and ends at once if that has passed.
#[async_trait]
pub trait Timer: Send + Sync {
    /// The current tick.
    fn tick(&self) -> Tick;

    /// Waits until the tick `moment`. It returns at once if that tick has passed.
    async fn sleep_until(&self, moment: Tick);
}

/// Generates ids of 128 bits, at least 74 of which are random or certainly unused. The low 32 bits are among them; they are also the
/// domain's source of jitter.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `ids_are_unique`: an id MUST NOT be generated twice, by several tasks, processes and restarts.
/// 2. `low_bits_of_ids_differ`: the low 32 bits of ids MUST be spread over their whole range.
pub trait IdGenerator: Send + Sync {
    /// Generates the next id.
    fn next_id(&self) -> u128;
}
