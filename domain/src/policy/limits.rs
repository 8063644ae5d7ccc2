//! Limits of the writes of one lock.

use std::time::Duration;

use crate::model::Timestamp;

/// What bounds the writes of one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many writes may be open at once.
    pub max_open_writes: usize,
    /// How many bytes all open writes may take on the shadow, each with [`Limits::RESULT_BYTES`] for
    /// its result. AWS allows 8 KiB a document.
    pub document_budget: usize,
    /// How long a lock may take to settle a write.
    pub time_to_live: Duration,
    /// From when on a write counts as unconfirmed.
    pub confirm_within: Duration,
    /// How long a recorded result may stay on the shadow when no update takes it along.
    pub clear_within: Duration,
    /// How long the answer to a request with an `Idempotency-Key` is kept (I7).
    pub idempotency_retention: Duration,
    /// How long a write that is over can be read; its events stay for ever.
    pub write_retention: Duration,
}

impl Limits {
    /// Set aside for the result of a write, in bytes.
    pub const RESULT_BYTES: usize = 192;

    /// When the shadow of a write that ended without a result of its lock is read once more: the lock may have been executing
    /// the write, and its report may have been lost.
    pub(super) fn final_check_at(&self, ended: Timestamp) -> Timestamp {
        ended.after(self.confirm_within)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_open_writes: 16,
            document_budget: 7 * 1024,
            time_to_live: Duration::from_secs(48 * 3600),
            confirm_within: Duration::from_secs(60),
            clear_within: Duration::from_secs(60),
            idempotency_retention: Duration::from_secs(24 * 3600),
            write_retention: Duration::from_secs(90 * 24 * 3600),
        }
    }
}
