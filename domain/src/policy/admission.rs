//! May this key be written to this lock now? Rules 1 to 6.

use std::borrow::Borrow;

use super::limits::Limits;
use crate::model::{
    KeySlot, LockId, LockSnapshot, Principal, ThingName, Timestamp, Write, WriteId,
};

/// Someone wants a key in a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// The lock.
    pub lock: LockId,
    /// The key, and the slot if the choice is not the lock's.
    pub slot: KeySlot,
}

/// The write may go ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    /// The thing whose shadow reaches the lock.
    pub thing: ThingName,
    /// Open writes whose place it takes.
    pub supersedes: Vec<WriteId>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write it.
    Write(Permitted),
    /// This open write is the same: there is nothing to record and nothing to send.
    AlreadyOpen(WriteId),
}

/// Why nothing is to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Rule 1: there is no such lock.
    #[error("the lock does not exist")]
    LockNotFound,
    /// Rule 1: the lock exists, and the principal may not touch it.
    #[error("the principal may not touch the lock")]
    Forbidden,
    /// Rule 2: no thing name is known for the lock.
    #[error("the lock is not bound to a thing")]
    NotProvisioned,
    /// Rule 3: the lock has fewer slots.
    #[error("the lock has {capacity} key slots")]
    IndexBeyondCapacity {
        /// How many it has; valid indexes are below.
        capacity: u64,
    },
    /// Rule 6: the lock has to settle some writes first.
    #[error("the lock has too many open writes")]
    TooManyOpenWrites,
}

/// Decides a write on what is known of the lock. Rule 5 shows in [`Permitted::supersedes`].
///
/// # Errors
/// The first rule that stands against it, in the order of their numbers.
pub fn decide_write(
    known: Option<&LockSnapshot>,
    command: &WriteKey,
    principal: &Principal,
    limits: &Limits,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let snapshot = permit(known, principal)?;
    let lock = &snapshot.lock;
    let thing = lock.thing.clone().ok_or(Rejection::NotProvisioned)?;
    if let (Some(index), Some(capacity)) = (command.slot.index, lock.key_capacity)
        && index.get() >= capacity
    {
        return Err(Rejection::IndexBeyondCapacity { capacity });
    }
    // While a prepared write may still take its place, the open one is no answer: the turn is waited for.
    let will_be_superseded = |w: &Write| {
        let newer = snapshot.prepared();
        newer.is_some_and(|newer| supersedes(&newer.slot, w))
    };
    if let Some(same) = snapshot
        .open()
        .find(|w| w.slot == command.slot && now < w.expires_at && !will_be_superseded(w))
    {
        return Ok(Decision::AlreadyOpen(same.id));
    }
    let superseded: Vec<WriteId> = snapshot
        .open()
        .filter(|w| supersedes(&command.slot, w))
        .map(|w| w.id)
        .collect();
    let staying = snapshot.open().filter(|w| !supersedes(&command.slot, w));
    if !fits(staying, &command.slot, limits) {
        return Err(Rejection::TooManyOpenWrites);
    }
    Ok(Decision::Write(Permitted {
        thing,
        supersedes: superseded,
    }))
}

/// Rule 1, which holds for everything that is asked of a lock.
///
/// # Errors
/// [`Rejection::LockNotFound`], [`Rejection::Forbidden`].
pub fn permit<S: Borrow<LockSnapshot>>(
    known: Option<S>,
    principal: &Principal,
) -> Result<S, Rejection> {
    let snapshot = known.ok_or(Rejection::LockNotFound)?;
    if principal.may_touch(&snapshot.borrow().lock) {
        Ok(snapshot)
    } else {
        Err(Rejection::Forbidden)
    }
}

/// Rule 5: a newer write for an index supersedes the open one; one without an index, nothing.
pub(super) fn supersedes(newer: &KeySlot, open: &Write) -> bool {
    newer.index.is_some() && newer.index == open.slot.index
}

fn fits<'a>(staying: impl Iterator<Item = &'a Write>, new: &KeySlot, limits: &Limits) -> bool {
    let (mut writes, mut bytes) = (1, longest_entry(new) + Limits::RESULT_BYTES);
    for write in staying {
        writes += 1;
        bytes += write.entry_bytes() + Limits::RESULT_BYTES;
    }
    writes <= limits.max_open_writes && bytes <= limits.document_budget
}

/// The entry of a write that has no `seq` and no end yet: both numbers at their longest.
fn longest_entry(slot: &KeySlot) -> usize {
    const LONGEST_NUMBERS: usize = 20 + 12;
    crate::model::entry_bytes(slot) + LONGEST_NUMBERS
}
