//! How far the deliveries of a webhook are.

use super::delivery::DeliveryRecord;
use super::state::DisabledReason;
use crate::model::{LockId, LockVersion, Position, Revision, Timestamp, WebhookId, WorkerId};

/// How far the deliveries of a webhook are, besides its waiting locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookProgress {
    /// Every event up to this position is delivered, is final without a delivery, or belongs to a [`WaitingLock`].
    pub cursor: Position,
    /// A replay that has not reached its end yet.
    pub replay: Option<ReplaySince>,
    /// The failures since the last delivery that succeeded. `None`: the last one succeeded.
    pub failures: Option<FailureStreak>,
    /// How many times the owner of the webhook has set the progress. Deliveries that began before start anew.
    pub restarts: u64,
}

impl WebhookProgress {
    /// The progress from which the events after `cursor` are delivered again. A cursor that the deliveries have not reached changes nothing,
    /// since no event may be skipped.
    #[must_use]
    pub fn replayed_after(self, cursor: Position) -> Self {
        Self {
            cursor: cursor.min(self.reached()),
            replay: None,
            ..self.restarted()
        }
    }

    /// The progress from which the events since a time are delivered again.
    #[must_use]
    pub fn replayed_since(self, since: Timestamp) -> Self {
        Self {
            cursor: Position::START,
            replay: Some(ReplaySince {
                since,
                until: self.reached(),
            }),
            ..self.restarted()
        }
    }

    /// The progress, which its owner sets.
    #[must_use]
    pub const fn restarted(self) -> Self {
        Self {
            restarts: self.restarts + 1,
            ..self
        }
    }

    /// The progress in a feed that ends at this position.
    #[must_use]
    pub fn within(self, end: Position) -> Self {
        let within = |replay: ReplaySince| ReplaySince {
            until: replay.until.min(end),
            ..replay
        };
        Self {
            cursor: self.cursor.min(end),
            replay: self.replay.map(within),
            ..self
        }
    }

    /// How far the deliveries were before a replay set the cursor back.
    fn reached(&self) -> Position {
        let until = self.replay.map(|replay| replay.until);
        self.cursor.max(until.unwrap_or_default())
    }
}

/// A replay of the events since a time. The cursor begins at the start of the feed, and earlier events are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySince {
    /// Events that were recorded earlier are not delivered.
    pub since: Timestamp,
    /// Events behind this position are delivered whatever their time is.
    pub until: Position,
}

/// Deliveries that have failed one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureStreak {
    /// When the first of them failed.
    pub since: Timestamp,
    /// How many there were.
    pub count: u32,
}

/// A lock whose next delivery to a webhook waits for its next attempt. Its later events wait behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingLock {
    /// The lock.
    pub lock: LockId,
    /// The version of the event that is delivered next.
    pub next: LockVersion,
    /// The version of the last event of the lock that the cursor has passed.
    pub through: LockVersion,
    /// How many attempts to deliver this event count against the schedule of retries.
    pub attempts: u32,
    /// When it is tried again.
    pub due: Timestamp,
}

/// Changes of a webhook's progress, which a store applies together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressSave {
    /// The webhook.
    pub webhook: WebhookId,
    /// The process that delivers.
    pub worker: WorkerId,
    /// The revision that the deliveries were based on.
    pub revision: Revision,
    /// The new progress.
    pub progress: WebhookProgress,
    /// Waiting locks that are new or have changed.
    pub put: Vec<WaitingLock>,
    /// Locks that no longer wait.
    pub remove: Vec<LockId>,
    /// Attempts to record. Their numbers are given by the store.
    pub records: Vec<DeliveryRecord>,
    /// The webhook is disabled, since this time.
    pub disable: Option<(DisabledReason, Timestamp)>,
}
