//! Limits of the writes of one lock.

use std::time::Duration;

use crate::model::Timestamp;

/// Limits of the writes of one lock. Take [`Limits::default`] and change its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of open writes (rule 6), at least 1.
    pub max_open_writes: usize,
    /// The maximum size of all open writes on the shadow, in bytes: their entries, with [`Limits::RESULT_BYTES`] for the result
    /// of each (rule 6). AWS IoT allows 8 KiB for a document.
    pub document_budget: usize,
    /// How long a lock may take to settle a write, more than zero. After that, the write expires.
    pub time_to_live: Duration,
    /// How long after it was sent a write counts as unconfirmed and its shadow is read.
    pub confirm_within: Duration,
    /// How long a recorded result may stay on the shadow until maintenance clears it. An update of another write clears it
    /// earlier.
    pub clear_within: Duration,
    /// How long the record of a request with an idempotency key is stored (I7).
    pub idempotency_retention: Duration,
    /// How long an ended write can be read. Its events are never deleted.
    pub write_retention: Duration,
}

impl Limits {
    /// The space reserved on the shadow for the result of one write, in bytes.
    pub const RESULT_BYTES: usize = 192;

    /// When the shadow of a write that ended without a result is read once more. The lock may have been executing the write, and
    /// its report may have been lost.
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
