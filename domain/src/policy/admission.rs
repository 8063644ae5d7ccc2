//! Admission rules 1 to 6: whether a key may be written to a lock now (docs/protocol.md).

use std::borrow::Borrow;

use super::access::AccessPolicy;
use super::limits::Limits;
use crate::model::{
    KeySlot, Lock, LockId, LockSnapshot, Principal, ThingName, Timestamp, Write, WriteId,
};

/// The command to write a key to a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// The lock.
    pub lock: LockId,
    /// The key, and the slot. Without an index, the lock chooses the slot.
    pub slot: KeySlot,
}

/// What a permitted write needs to be prepared and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    /// The thing whose shadow reaches the lock.
    pub thing: ThingName,
    /// Open writes that it supersedes (rule 5).
    pub supersedes: Vec<WriteId>,
}

/// The decision on a command that no rule rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteDecision {
    /// Write the key.
    Write(Permitted),
    /// Rule 4: this open write has the same key and slot. Nothing has to be recorded or sent.
    AlreadyOpen(WriteId),
}

/// The rule that rejects a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Rule 1: the lock does not exist.
    #[error("the lock does not exist")]
    LockNotFound,
    /// Rule 1: the lock exists, and the principal may not access it.
    #[error("the principal may not access the lock")]
    Forbidden,
    /// Rule 2: the lock has no thing name.
    #[error("the lock is not bound to a thing")]
    NotProvisioned,
    /// Rule 3: the lock has no slot with this index.
    #[error("the lock has {capacity} key slots")]
    IndexBeyondCapacity {
        /// The number of slots. Valid indexes are below it.
        capacity: u64,
    },
    /// Rule 6: the lock has too many open writes, or they occupy too much of the shadow. It has to settle some of them first.
    #[error("the lock has too many open writes")]
    TooManyOpenWrites,
}

/// Applies rules 1 to 6 to a command. `known` is the lock; `None`: it does not exist. The writes of rule 5 are in
/// [`Permitted::supersedes`].
///
/// # Errors
/// The first rule that rejects the command, in the order of their numbers.
pub fn decide_write(
    known: Option<&LockSnapshot>,
    command: &WriteKey,
    principal: &Principal,
    access: &dyn AccessPolicy,
    limits: &Limits,
    now: Timestamp,
) -> Result<WriteDecision, Rejection> {
    let snapshot = authorize_write(known, principal, access)?;
    let lock = &snapshot.lock;
    let thing = lock.thing.clone().ok_or(Rejection::NotProvisioned)?;
    if let (Some(index), Some(capacity)) = (command.slot.index, lock.key_capacity)
        && index.get() >= capacity
    {
        return Err(Rejection::IndexBeyondCapacity { capacity });
    }
    // The lock's prepared write may supersede the open one, which then is no answer. The request waits for it in the queue.
    let will_be_superseded = |w: &Write| {
        let newer = snapshot.prepared();
        newer.is_some_and(|newer| supersedes(&newer.slot, w))
    };
    if let Some(same) = snapshot
        .open()
        .find(|w| w.slot == command.slot && now < w.expires_at && !will_be_superseded(w))
    {
        return Ok(WriteDecision::AlreadyOpen(same.id));
    }
    let superseded: Vec<WriteId> = snapshot
        .open()
        .filter(|w| supersedes(&command.slot, w))
        .map(|w| w.id)
        .collect();
    let remaining = snapshot.open().filter(|w| !supersedes(&command.slot, w));
    if !fits(remaining, &command.slot, limits) {
        return Err(Rejection::TooManyOpenWrites);
    }
    Ok(WriteDecision::Write(Permitted {
        thing,
        supersedes: superseded,
    }))
}

/// Applies rule 1 to a read and returns the lock. Every use case that acts for a principal calls this or one of the two below.
///
/// # Errors
/// [`Rejection::LockNotFound`], [`Rejection::Forbidden`].
pub fn authorize<S: Borrow<LockSnapshot>>(
    known: Option<S>,
    principal: &Principal,
    access: &dyn AccessPolicy,
) -> Result<S, Rejection> {
    permitted(known, |lock| access.may_access(principal, lock))
}

/// As [`authorize`], for writing a key.
///
/// # Errors
/// [`Rejection::LockNotFound`], [`Rejection::Forbidden`].
pub fn authorize_write<S: Borrow<LockSnapshot>>(
    known: Option<S>,
    principal: &Principal,
    access: &dyn AccessPolicy,
) -> Result<S, Rejection> {
    permitted(known, |lock| access.may_write(principal, lock))
}

/// As [`authorize`], for withdrawing a write.
///
/// # Errors
/// [`Rejection::LockNotFound`], [`Rejection::Forbidden`].
pub fn authorize_withdrawal<S: Borrow<LockSnapshot>>(
    known: Option<S>,
    principal: &Principal,
    access: &dyn AccessPolicy,
) -> Result<S, Rejection> {
    permitted(known, |lock| access.may_withdraw(principal, lock))
}

fn permitted<S: Borrow<LockSnapshot>>(
    known: Option<S>,
    is_permitted: impl FnOnce(&Lock) -> bool,
) -> Result<S, Rejection> {
    let snapshot = known.ok_or(Rejection::LockNotFound)?;
    match is_permitted(&snapshot.borrow().lock) {
        true => Ok(snapshot),
        false => Err(Rejection::Forbidden),
    }
}

/// Rule 5: a write supersedes the open writes with the same index. A write without an index supersedes nothing.
pub(super) fn supersedes(newer: &KeySlot, open: &Write) -> bool {
    newer.index.is_some() && newer.index == open.slot.index
}

/// Rule 6: whether the open writes that remain and the new one stay within the limits.
fn fits<'a>(remaining: impl Iterator<Item = &'a Write>, new: &KeySlot, limits: &Limits) -> bool {
    let (mut writes, mut bytes) = (1, max_entry_bytes(new) + Limits::RESULT_BYTES);
    for write in remaining {
        writes += 1;
        bytes += write.entry_bytes() + Limits::RESULT_BYTES;
    }
    writes <= limits.max_open_writes && bytes <= limits.document_budget
}

/// The maximum size in bytes of the entry of a write that has no `seq` and no `expiresAt` yet.
fn max_entry_bytes(slot: &KeySlot) -> usize {
    const MAX_SEQ_DIGITS: usize = 20;
    const MAX_EXPIRES_AT_DIGITS: usize = 12;
    crate::model::entry_bytes(slot) + MAX_SEQ_DIGITS + MAX_EXPIRES_AT_DIGITS
}
