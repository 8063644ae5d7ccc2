//! May this key be written to this lock now? Rules 1 to 6.

use std::borrow::Borrow;
use std::time::Duration;

use crate::event::KeySlot;
use crate::lock::LockSnapshot;
use crate::principal::Principal;
use crate::values::{LockId, ThingName, Timestamp, WriteId};
use crate::write::Write;

/// Someone wants a key in a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// The lock.
    pub lock: LockId,
    /// The key, and the slot if the choice is not the lock's.
    pub slot: KeySlot,
}

/// What bounds the writes of one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many writes may be open at once.
    pub max_open_writes: usize,
    /// How many bytes all open writes may take on the shadow, each with [`Limits::RESULT_BYTES`] for
    /// its result. AWS allows 8 KiB a document.
    pub document_budget: usize,
    /// How long a lock may take to settle a write.
    pub time_to_live: Duration,
    /// From when on a write counts as unconfirmed.
    pub confirm_within: Duration,
    /// How long a recorded result may stay on the shadow when no update takes it along.
    pub clear_within: Duration,
    /// How long the answer to a request with an `Idempotency-Key` is kept (I7).
    pub keep_answers: Duration,
    /// How long a write that is over can be read; its events stay for ever.
    pub keep_writes: Duration,
}

impl Limits {
    /// Set aside for the result of a write, in bytes.
    pub const RESULT_BYTES: usize = 192;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_open_writes: 16,
            document_budget: 7 * 1024,
            time_to_live: Duration::from_secs(48 * 3600),
            confirm_within: Duration::from_secs(60),
            clear_within: Duration::from_secs(60),
            keep_answers: Duration::from_secs(24 * 3600),
            keep_writes: Duration::from_secs(90 * 24 * 3600),
        }
    }
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
pub fn decide(
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
    let doomed = |w: &Write| {
        let newer = snapshot.prepared();
        newer.is_some_and(|newer| takes_the_place_of(&newer.slot, w))
    };
    if let Some(same) = snapshot
        .open()
        .find(|w| w.slot == command.slot && now < w.expires_at && !doomed(w))
    {
        return Ok(Decision::AlreadyOpen(same.id));
    }
    let supersedes: Vec<WriteId> = snapshot
        .open()
        .filter(|w| takes_the_place_of(&command.slot, w))
        .map(|w| w.id)
        .collect();
    let staying = snapshot
        .open()
        .filter(|w| !takes_the_place_of(&command.slot, w));
    if !fits(staying, &command.slot, limits) {
        return Err(Rejection::TooManyOpenWrites);
    }
    Ok(Decision::Write(Permitted { thing, supersedes }))
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
pub(super) fn takes_the_place_of(newer: &KeySlot, open: &Write) -> bool {
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
    crate::write::entry_bytes(slot) + LONGEST_NUMBERS
}
