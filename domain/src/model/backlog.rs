//! Unfinished work, for maintenance and monitoring.

use std::time::Duration;

use crate::model::{Timestamp, Write, WriteId};

/// A position in the list of due writes, which is ordered by the time of the next check and then by write id. Reading
/// continues after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueCursor {
    /// When the write at this position is due.
    pub at: Timestamp,
    /// The id of that write.
    pub id: WriteId,
}

impl DueCursor {
    /// The position of a write. `None`: the write has no next check.
    pub fn of(write: &Write) -> Option<Self> {
        write.next_check_at.map(|at| Self { at, id: write.id })
    }
}

/// Counts of unfinished writes in the whole store, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Prepared writes, whose outcome is not known yet.
    pub intents: u64,
    /// How long the oldest intent has been open: the time since this process first read it, by a monotonic clock. A claim
    /// does not start it anew.
    pub oldest_intent: Option<Duration>,
    /// Open writes: on a shadow, and without a final result.
    pub open: u64,
    /// Open writes that count as unconfirmed, see [`Write::is_unconfirmed`].
    pub unconfirmed: u64,
}
