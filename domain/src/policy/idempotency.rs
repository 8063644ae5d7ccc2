//! Has this request been made before? Invariant I7.

use std::time::Duration;

use super::save_draft::SaveDraft;
use crate::model::{
    IdempotencyRecord, KeySlot, LockSnapshot, LockVersion, Save, Timestamp, Write, WriteId,
    WriteState,
};

/// How a request with an idempotency key is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyDecision {
    /// As a new request: it is the first with its key, or the earlier one changed nothing.
    First,
    /// As before: with the event of this write, or without an event at this version.
    Answered(WriteId, Option<LockVersion>),
    /// With a conflict: the first request is still running.
    Running,
    /// The outcome of the first request is not known yet.
    Undecided(WriteId),
    /// With an error: the first request had another key or slot.
    OtherCommand,
}

/// Decides from the stored record and its write how to answer a request for `slot`.
///
/// A request runs for `request_timeout` at most. A record whose answer deadline is later than that was stored before the clock
/// was set back, and its request has ended.
pub fn decide_idempotency(
    record: &IdempotencyRecord,
    write: Option<&Write>,
    slot: &KeySlot,
    request_timeout: Duration,
    now: Timestamp,
) -> IdempotencyDecision {
    let Some(write) = write.filter(|_| now < record.expires_at) else {
        return IdempotencyDecision::First;
    };
    if matches!(write.state, WriteState::Aborted { .. }) {
        return IdempotencyDecision::First;
    }
    if record.slot != *slot {
        return IdempotencyDecision::OtherCommand;
    }
    let deadline = record.answer_deadline;
    let running = now < deadline && deadline <= now.after(request_timeout);
    match write.intent() {
        Some(intent) if intent.epoch.0 == 1 && running => IdempotencyDecision::Running,
        Some(_) => IdempotencyDecision::Undecided(write.id),
        None => IdempotencyDecision::Answered(write.id, record.version_without_event),
    }
}

/// Stores the record of an answer without an event. The save increments the revision, so that of two concurrent requests with one
/// key, one finds the record of the other.
pub fn record_without_event(
    snapshot: &LockSnapshot,
    record: IdempotencyRecord,
    now: Timestamp,
) -> Save {
    let mut save = SaveDraft::new(snapshot, now).save(None);
    save.idempotency = Some(Box::new(record));
    save
}
