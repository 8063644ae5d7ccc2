//! Has this request been made before? I7.

use std::time::Duration;

use crate::event::KeySlot;
use crate::lock::LockSnapshot;
use crate::ports::Save;
use crate::principal::Principal;
use crate::values::{IdempotencyKey, LockId, LockVersion, Timestamp, WriteId};
use crate::write::{Write, WriteState};

use super::draft::Draft;

/// What names a request: the client's own key, which counts for one principal and one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestName {
    /// The lock.
    pub lock: LockId,
    /// Who asks, by identities: another credential of the same identity may repeat a request.
    pub principal: String,
    /// The client's key.
    pub key: IdempotencyKey,
}

impl RequestName {
    /// The name of what this principal asks of this lock under this key.
    pub fn new(lock: LockId, principal: &Principal, key: IdempotencyKey) -> Self {
        Self {
            lock,
            principal: principal.scope(),
            key,
        }
    }
}

/// What is kept of a request that had a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its name.
    pub request: RequestName,
    /// What was to be written.
    pub slot: KeySlot,
    /// The write that it led to, or that was found to be the same.
    pub write: WriteId,
    /// Where the same write was open already: the lock's version that was answered, without an event.
    pub without_event: Option<LockVersion>,
    /// When the request itself is answered at the latest.
    pub answered_by: Timestamp,
    /// Until when it is kept.
    pub until: Timestamp,
}

/// What to make of a request that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It is the first of its name, or what came before it changed nothing.
    First,
    /// It was answered before: with the event of this write, or without one at this version.
    Answered(WriteId, Option<LockVersion>),
    /// The first one is still running.
    Running,
    /// The outcome of the first one is not known yet.
    Undecided(WriteId),
    /// The first one wanted something else.
    OtherCommand,
}

/// `write` is the one that `kept` names. A request runs for `request` at the longest: where it is said to be answered only
/// later than that, the clock was set back since, and the request is over.
pub fn decide_repeat(
    kept: &KeptAnswer,
    write: Option<&Write>,
    slot: &KeySlot,
    request: Duration,
    now: Timestamp,
) -> Repeat {
    let Some(write) = write.filter(|_| now < kept.until) else {
        return Repeat::First;
    };
    if matches!(write.state, WriteState::Aborted { .. }) {
        return Repeat::First;
    }
    if kept.slot != *slot {
        return Repeat::OtherCommand;
    }
    let running = now < kept.answered_by && kept.answered_by <= now.after(request);
    match write.intent() {
        Some(intent) if intent.epoch.0 == 1 && running => Repeat::Running,
        Some(_) => Repeat::Undecided(write.id),
        None => Repeat::Answered(write.id, kept.without_event),
    }
}

/// Keeps an answer that recorded nothing else. The save moves the revision, so that of two requests of one name that
/// come at once, one finds what the other has kept.
pub fn keep_without_event(snapshot: &LockSnapshot, kept: KeptAnswer, now: Timestamp) -> Save {
    let mut save = Draft::new(snapshot, now).save(None);
    save.kept = Some(Box::new(kept));
    save
}
