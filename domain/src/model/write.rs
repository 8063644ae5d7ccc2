//! One key write and where it stands in its life.

use std::time::Duration;

use crate::model::{
    Anomalies, Epoch, FailureReason, KeyIndex, KeySlot, LockEvent, LockId, LockUuid, LockVersion,
    RecordedEvent, Sequence, ThingName, Timestamp, WriteId,
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

/// Where a write stands. Each state carries what is only true in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WriteState {
    /// Permitted, valid, durable; sent or about to be; the outcome is not known yet.
    Prepared(Intent),
    /// The shadow accepted it. This is what a 200 claims.
    Sent,
    /// The lock says that it is at it.
    InProgress,
    /// The lock reports the key in its memory.
    Succeeded(Settled),
    /// The lock tried or refused.
    Failed(FailureReason, Settled),
    /// Not settled within its time to live; taken off the shadow.
    Expired {
        /// When that was recorded.
        at: Timestamp,
    },
    /// A newer write for the same slot took its place.
    Superseded {
        /// When that was recorded.
        at: Timestamp,
    },
    /// Taken back on request.
    Withdrawn {
        /// When that was recorded.
        at: Timestamp,
    },
    /// The shadow refused the update or certainly never took it.
    Aborted {
        /// When that was recorded.
        at: Timestamp,
        /// Why.
        reason: FailureReason,
    },
}

/// The lock's own word on a write; nothing changes it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settled {
    /// When the report was recorded.
    pub at: Timestamp,
    /// It came after the write had expired, or been superseded or withdrawn.
    pub late: bool,
}

impl WriteState {
    /// Every name that [`WriteState::name`] returns, in the order of the states.
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

    /// The state's name as clients read it.
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

/// Where a write's `KeyWriteRequested` stands in the stream: the answer that its 200 gives.
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
    /// Names it in the store, on the shadow and in the lock's report.
    pub id: WriteId,
    /// The lock.
    pub lock: LockId,
    /// The lock's UUID.
    pub uuid: LockUuid,
    /// The thing that it was prepared for; only that thing's reports count.
    pub thing: ThingName,
    /// The key and slot as requested.
    pub slot: KeySlot,
    /// Its place in the order of the lock's writes.
    pub seq: Sequence,
    /// Who asked, for audits; no decision reads it.
    pub requested_by: String,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// Until when the lock may still apply it.
    pub expires_at: Timestamp,
    /// `None` while prepared, and for ever once aborted.
    pub requested: Option<Requested>,
    /// Where it stands.
    pub state: WriteState,
    /// What was odd about the lock's answers.
    pub anomalies: Anomalies,
    /// The slot that the lock named, where it is another one than was asked for.
    pub reported_index: Option<KeyIndex>,
    /// When maintenance looks at it next: an open write to read its shadow or to expire it, one that its lock
    /// settled to clear its result from the shadow, one that ended otherwise for a last look at what the lock
    /// may have said. `None`: nothing is left to do.
    pub next_check_at: Option<Timestamp>,
}

impl Write {
    /// On the shadow and not final: SENT or IN_PROGRESS.
    pub fn is_open(&self) -> bool {
        matches!(self.state, WriteState::Sent | WriteState::InProgress)
    }

    /// The intent while the outcome of its update is not known.
    pub fn intent(&self) -> Option<&Intent> {
        match &self.state {
            WriteState::Prepared(intent) => Some(intent),
            _ => None,
        }
    }

    /// The lock itself has said how it ended.
    pub fn is_settled_by_lock(&self) -> bool {
        matches!(
            self.state,
            WriteState::Succeeded(_) | WriteState::Failed(..)
        )
    }

    /// Settled by the lock, and its result is still to be cleared from the shadow.
    pub fn has_uncleared_result(&self) -> bool {
        self.is_settled_by_lock() && self.next_check_at.is_some()
    }

    /// Whoever decides about its lock has to know of it: its outcome is not known yet, it is open, or its result is
    /// still to be cleared. Others that maintenance looks at are found by their ids.
    pub fn is_live(&self) -> bool {
        self.intent().is_some() || self.is_open() || self.has_uncleared_result()
    }

    /// When it came to its end, where it has.
    pub fn settled_at(&self) -> Option<Timestamp> {
        match &self.state {
            WriteState::Prepared(_) | WriteState::Sent | WriteState::InProgress => None,
            WriteState::Succeeded(settled) | WriteState::Failed(_, settled) => Some(settled.at),
            WriteState::Expired { at }
            | WriteState::Superseded { at }
            | WriteState::Withdrawn { at }
            | WriteState::Aborted { at, .. } => Some(*at),
        }
    }

    /// The lock's word came after the write had ended otherwise.
    pub fn is_late(&self) -> bool {
        match &self.state {
            WriteState::Succeeded(settled) | WriteState::Failed(_, settled) => settled.late,
            _ => false,
        }
    }

    /// SENT for longer than `confirm_within`, or at a moment that lies further ahead than that: the clock was set back
    /// since, and nobody knows for how long. A reading, not a state, and not a failure.
    pub fn is_unconfirmed(&self, now: Timestamp, confirm_within: Duration) -> bool {
        matches!(self.state, WriteState::Sent)
            && self.requested.is_some_and(|r| {
                now.since(r.time) > confirm_within || r.time.since(now) > confirm_within
            })
    }

    /// The event that its 200 answers with.
    pub fn requested_event(&self) -> Option<RecordedEvent> {
        self.requested.map(|requested| RecordedEvent {
            lock: self.lock,
            uuid: self.uuid.clone(),
            version: requested.version,
            time: requested.time,
            write: Some(self.id),
            event: LockEvent::KeyWriteRequested(self.slot.clone()),
        })
    }

    /// How many bytes its entry takes on the shadow as compact JSON, with its separator.
    pub fn entry_bytes(&self) -> usize {
        entry_bytes(&self.slot) + digits(self.seq.0) + digits(self.expires_at.as_secs())
    }
}

/// The bytes of an entry without the digits of `seq` and `expiresAt`.
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

/// The length of printable text inside a JSON string: a quote and a backslash take two bytes (RFC 8259, section 7).
fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|b| if matches!(b, b'"' | b'\\') { 2 } else { 1 })
        .sum()
}
