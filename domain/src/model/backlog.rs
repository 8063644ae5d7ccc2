//! Unfinished work, for maintenance and monitoring.

use std::time::Duration;

use crate::model::{Timestamp, Write, WriteId};

/// A position in the list of due writes, which is ordered by the moment of the next check and then by id. Reading continues
/// after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueCursor {
    /// The moment of the next check.
    pub at: Timestamp,
    /// The write.
    pub id: WriteId,
}

impl DueCursor {
    /// The position of a write; `None` where it has no next check.
    pub fn of(write: &Write) -> Option<Self> {
        write.next_check_at.map(|at| Self { at, id: write.id })
    }
}

/// How much work is unfinished, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Prepared writes, whose outcome is not known yet.
    pub intents: u64,
    /// How long the oldest of them has been open, by the store's monotonic clock since the store first read it.
    pub oldest_intent: Option<Duration>,
    /// Open writes: on a shadow, and without a final result.
    pub open: u64,
    /// Open writes that count as unconfirmed.
    pub unconfirmed: u64,
}
