use async_trait::async_trait;

use crate::model::{Tick, Timestamp};

/// The wall clock, for what is recorded and for times to live. It may be set back.
pub trait Clock: Send + Sync {
    /// This moment.
    fn now(&self) -> Timestamp;
}

/// A monotonic clock that can be waited for, for deadlines and pauses.
#[async_trait]
pub trait Timer: Send + Sync {
    /// This moment.
    fn tick(&self) -> Tick;

    /// Waits until that moment; at once where it has passed.
    async fn sleep_until(&self, moment: Tick);
}

/// Ids that nobody else has: 128 bits each, of which at least 74 are random or certainly unused.
pub trait IdGenerator: Send + Sync {
    /// The next one.
    fn next_id(&self) -> u128;
}
