//! Decides how a repeated request with an idempotency key is answered (invariant I7).

use std::time::Duration;

use super::save_draft::SaveDraft;
use crate::model::{
    IdempotencyRecord, KeySlot, LockSnapshot, LockVersion, Save, Timestamp, Write, WriteId,
    WriteState,
};

/// How to answer a request whose idempotency key has a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyDecision {
    /// Run it as a new request: the record has expired, or the earlier request changed nothing.
    First,
    /// Repeat the first answer: the event of this write, or, with a version, no event at this version of the lock.
    Answered(WriteId, Option<LockVersion>),
    /// Answer with a conflict: the first request is still running.
    Running,
    /// Answer that the outcome of this write, which the first request prepared, is not known yet.
    Undecided(WriteId),
    /// Answer with an error: the first request had another key or slot.
    OtherCommand,
}

/// Decides how to answer a request for `slot`. `write` is the write of the record; `None`: it has been purged.
///
/// A request runs for at most `request_timeout`. If the answer deadline of the record is further ahead than that, the clock has
/// been set back since, and the request has ended.
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
