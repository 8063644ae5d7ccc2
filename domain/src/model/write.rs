//! Key writes and their states.

use std::time::Duration;

use crate::model::{
    Anomalies, Cause, Epoch, FailureReason, KeyIndex, KeySlot, LockEvent, LockId, LockUuid,
    LockVersion, RecordedEvent, Sequence, ThingName, Timestamp, WriteId,
};

/// A process that may act on intents. No two processes share an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u128);

/// Which process is responsible for a prepared write, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    /// The process.
    pub worker: WorkerId,
    /// Incremented by every take-over. A process with an outdated epoch can no longer save.
    pub epoch: Epoch,
    /// How long the process may act, from the save that stores the intent, by a monotonic clock.
    pub lease: Duration,
}

impl Intent {
    /// The intent after a take-over by `worker`.
    #[must_use]
    pub const fn taken_over(self, worker: WorkerId, lease: Duration) -> Self {
        let epoch = self.epoch.next();
        Self {
            worker,
            epoch,
            lease,
        }
    }
}

/// The state of a write, with the data that exists only in this state. docs/protocol.md shows the transitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WriteState {
    /// The write is permitted and durable. Whether the shadow has accepted it is not known yet.
    Prepared(Intent),
    /// The shadow has accepted the write. A 200 claims this state.
    Sent,
    /// The lock reports that it is executing the write.
    InProgress,
    /// The lock reports that it holds the key.
    Succeeded(Settled),
    /// The lock reports that it could not or would not store the key.
    Failed(FailureReason, Settled),
    /// The lock did not settle the write within its time to live. Its entry has been removed from the shadow.
    Expired {
        /// When that was recorded.
        at: Timestamp,
    },
    /// A newer write for the same slot has replaced it.
    Superseded {
        /// When that was recorded.
        at: Timestamp,
    },
    /// A client has withdrawn it.
    Withdrawn {
        /// When that was recorded.
        at: Timestamp,
    },
    /// The shadow does not have the write and will never accept it.
    Aborted {
        /// When that was recorded.
        at: Timestamp,
        /// Why the shadow does not have it.
        reason: FailureReason,
    },
}

/// When the lock's final result was recorded. Nothing changes the state of the write afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settled {
    /// When the report was recorded.
    pub at: Timestamp,
    /// Whether the report came after the write had expired, or been superseded or withdrawn.
    pub late: bool,
}

impl WriteState {
    /// Every name that [`WriteState::name`] returns, in the order of the variants.
    pub const NAMES: [&'static str; 9] = [
        "PREPARED",
        "SENT",
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
        "EXPIRED",
        "SUPERSEDED",
        "WITHDRAWN",
        "ABORTED",
    ];

    /// The name of the state in the HTTP contract.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepared(_) => "PREPARED",
            Self::Sent => "SENT",
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded(_) => "SUCCEEDED",
            Self::Failed(..) => "FAILED",
            Self::Expired { .. } => "EXPIRED",
            Self::Superseded { .. } => "SUPERSEDED",
            Self::Withdrawn { .. } => "WITHDRAWN",
            Self::Aborted { .. } => "ABORTED",
        }
    }
}

/// The position of a write's `KeyWriteRequested` in the stream. The 200 of the write contains this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requested {
    /// The event's version.
    pub version: LockVersion,
    /// The event's time.
    pub time: Timestamp,
}

/// One key write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Identifies the write in the store, on the shadow and in the lock's report.
    pub id: WriteId,
    /// The lock.
    pub lock: LockId,
    /// The lock's UUID.
    pub uuid: LockUuid,
    /// The thing of the lock when the write was prepared. Reports of other things do not count.
    pub thing: ThingName,
    /// The key and slot as requested.
    pub slot: KeySlot,
    /// Orders the writes of the lock on its shadow.
    pub seq: Sequence,
    /// The request for the write.
    pub cause: Cause,
    /// When the write was prepared.
    pub prepared_at: Timestamp,
    /// The end of its time to live. From then on the lock skips it.
    pub expires_at: Timestamp,
    /// The position of its `KeyWriteRequested`. `None`: the write is prepared or aborted.
    pub requested: Option<Requested>,
    /// The state.
    pub state: WriteState,
    /// Violations of the device contract in the lock's results.
    pub anomalies: Anomalies,
    /// The slot that the lock reported, if it differs from the requested one.
    pub reported_index: Option<KeyIndex>,
    /// When maintenance checks the write next. It reads the shadow of an open write or expires it; it clears the result of a
    /// write that the lock has settled; and it looks for a late result of a write that ended otherwise. `None`: nothing is
    /// left to do.
    pub next_check_at: Option<Timestamp>,
}

impl Write {
    /// Whether its entry is on the shadow and it has no final state: SENT or IN_PROGRESS.
    pub fn is_open(&self) -> bool {
        matches!(self.state, WriteState::Sent | WriteState::InProgress)
    }

    /// The intent of a prepared write. `None`: the write is in another state.
    pub fn intent(&self) -> Option<&Intent> {
        match &self.state {
            WriteState::Prepared(intent) => Some(intent),
            _ => None,
        }
    }

    /// Whether the lock has reported a final result: SUCCEEDED or FAILED.
    pub fn is_settled_by_lock(&self) -> bool {
        matches!(
            self.state,
            WriteState::Succeeded(_) | WriteState::Failed(..)
        )
    }

    /// Whether the lock has settled it and its result has not been cleared from the shadow yet.
    pub fn has_uncleared_result(&self) -> bool {
        self.is_settled_by_lock() && self.next_check_at.is_some()
    }

    /// Whether decisions about its lock take it into account: it is prepared, it is open, or its result is still to be cleared.
    /// A [`LockSnapshot`](crate::model::LockSnapshot) has exactly the live writes of a lock; others are read by their ids.
    pub fn is_live(&self) -> bool {
        self.intent().is_some() || self.is_open() || self.has_uncleared_result()
    }

    /// When it reached a final state. `None`: it is prepared or open.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match &self.state {
            WriteState::Prepared(_) | WriteState::Sent | WriteState::InProgress => None,
            WriteState::Succeeded(settled) | WriteState::Failed(_, settled) => Some(settled.at),
            WriteState::Expired { at }
            | WriteState::Superseded { at }
            | WriteState::Withdrawn { at }
            | WriteState::Aborted { at, .. } => Some(*at),
        }
    }

    /// Whether the lock's result came after the write had expired, or been superseded or withdrawn.
    pub fn is_late(&self) -> bool {
        match &self.state {
            WriteState::Succeeded(settled) | WriteState::Failed(_, settled) => settled.late,
            _ => false,
        }
    }

    /// Why it failed or was aborted. `None`: it is in another state.
    pub fn reason(&self) -> Option<&FailureReason> {
        match &self.state {
            WriteState::Failed(reason, _) | WriteState::Aborted { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether the write has been SENT for longer than `confirm_within`. It does not mean that the write has failed.
    ///
    /// A write that was sent more than `confirm_within` in the future counts, too: the clock has been set back since, so its
    /// age is unknown.
    pub fn is_unconfirmed(&self, now: Timestamp, confirm_within: Duration) -> bool {
        matches!(self.state, WriteState::Sent)
            && self.requested.is_some_and(|r| {
                now.since(r.time) > confirm_within || r.time.since(now) > confirm_within
            })
    }

    /// The states that it has been in, as far as they are recorded, with their times. The time of IN_PROGRESS is not recorded, and a late
    /// result replaces the state before it.
    pub fn steps(&self) -> Vec<(&'static str, Option<Timestamp>)> {
        let prepared = ("PREPARED", Some(self.prepared_at));
        let sent = { self.requested }.map(|requested| ("SENT", Some(requested.time)));
        let last = match self.state {
            WriteState::Prepared(_) | WriteState::Sent => None,
            _ => Some((self.state.name(), self.ended_at())),
        };
        { std::iter::once(prepared).chain(sent).chain(last) }.collect()
    }

    /// Its `KeyWriteRequested`, which its 200 contains. `None`: the write is prepared or aborted.
    pub fn requested_event(&self) -> Option<RecordedEvent> {
        self.requested.map(|requested| RecordedEvent {
            lock: self.lock,
            uuid: self.uuid.clone(),
            version: requested.version,
            time: requested.time,
            write: Some(self.id),
            cause: Some(self.cause.clone()),
            event: LockEvent::KeyWriteRequested(self.slot.clone()),
        })
    }

    /// The size of its entry on the shadow, in bytes of compact JSON with the separating comma.
    pub fn entry_bytes(&self) -> usize {
        entry_bytes(&self.slot) + digits(self.seq.0) + digits(self.expires_at.as_secs())
    }
}

/// The size of an entry in bytes, without the digits of `seq` and `expiresAt`.
pub(crate) fn entry_bytes(slot: &KeySlot) -> usize {
    let index = slot
        .index
        .map_or(0, |i| r#","keyIndexNumber":"#.len() + digits(i.get()));
    WriteId::TEXT_LEN
        + r#""":{"keyUuid":"","seq":,"expiresAt":},"#.len()
        + escaped_len(slot.key.as_str())
        + index
}

fn digits(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The length in bytes of printable text inside a JSON string: quotes and backslashes take two bytes (RFC 8259, section 7).
fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|b| if matches!(b, b'"' | b'\\') { 2 } else { 1 })
        .sum()
}
