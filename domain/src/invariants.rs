//! Checks of the invariants I1 to I7, which docs/protocol.md specifies. Tests, models and simulations share them.
//!
//! I3 (a 504 resolves by itself) and I7 (the same idempotency key gets the same answer) are statements about several requests;
//! `domain/tests/simulation` checks them.

use crate::model::{
    Lock, LockEvent, LockSnapshot, RecordedEvent, ShadowSnapshot, Timestamp, Write, WriteId,
    WriteState,
};
use crate::usecase::{WriteError, WriteReceipt};

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} does not hold: {what}")]
pub struct Violation {
    /// The number of the invariant, `I1` to `I7`.
    pub invariant: &'static str,
    /// What violates it.
    pub what: String,
}

fn violated(invariant: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { invariant, what })
}

/// I1: the versions of a stream are 1, 2, 3 and so on without gaps, its events fold to a lock, and each write has at most one
/// `KeyWriteRequested`.
///
/// # Errors
/// The first violation.
pub fn i1_stream(stream: &[RecordedEvent]) -> Result<(), Violation> {
    if let Err(why) = Lock::fold(stream) {
        return violated("I1", why.to_string());
    }
    let mut requested: Vec<WriteId> = requested_writes(stream).collect();
    requested.sort_unstable();
    match requested.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => violated("I1", format!("write {} was requested twice", pair[0])),
        None => Ok(()),
    }
}

fn requested_writes(stream: &[RecordedEvent]) -> impl Iterator<Item = WriteId> {
    let requests = stream
        .iter()
        .filter(|e| matches!(e.event, LockEvent::KeyWriteRequested(_)));
    requests.filter_map(|e| e.write)
}

/// I1: the event of a 200 is in the stream of its lock.
///
/// # Errors
/// The event is missing or differs.
pub fn i1_answered(answer: &WriteReceipt, stream: &[RecordedEvent]) -> Result<(), Violation> {
    let write = answer.write;
    let recorded = match &answer.event {
        Some(event) => stream.contains(event),
        None => requested_writes(stream).any(|id| id == write),
    };
    match recorded {
        true => Ok(()),
        false => violated(
            "I1",
            format!("write {write} was answered 200 and is not in the stream"),
        ),
    }
}

/// I2: an aborted write has no event and is not on the shadow. A write in another state passes.
///
/// # Errors
/// The write has an event, an entry or a result.
pub fn i2_aborted(
    write: &Write,
    stream: &[RecordedEvent],
    shadow: Option<&ShadowSnapshot>,
) -> Result<(), Violation> {
    if !matches!(write.state, WriteState::Aborted { .. }) {
        return Ok(());
    }
    if stream.iter().any(|e| e.write == Some(write.id)) {
        return violated("I2", format!("aborted write {} has an event", write.id));
    }
    if shadow.is_some_and(|s| s.has_write(write.id)) {
        return violated("I2", format!("aborted write {} is on the shadow", write.id));
    }
    Ok(())
}

/// I1 and I2: the answer of a request agrees with its stored write. A 200 has a requested write; an error that promises that
/// nothing happened has an aborted write or none.
///
/// # Errors
/// The answer and the store disagree.
pub fn i2_answer(
    answer: &Result<WriteReceipt, WriteError>,
    stored: Option<&Write>,
) -> Result<(), Violation> {
    let requested = stored.is_some_and(|w| w.requested.is_some());
    match answer {
        Ok(_) if !requested => violated("I1", "a 200 has no requested write".into()),
        Err(WriteError::NotUpdated(_) | WriteError::Rejected(_)) if requested => {
            violated("I2", "a refused write was requested".into())
        }
        _ => Ok(()),
    }
}

/// I4, at rest: no intent is open, and no open write is past its time to live.
///
/// # Errors
/// A write that has not ended.
pub fn i4_all_end(snapshot: &LockSnapshot, now: Timestamp) -> Result<(), Violation> {
    if let Some(write) = snapshot.prepared() {
        return violated(
            "I4",
            format!("the intent of write {} is still open", write.id),
        );
    }
    match snapshot.open().find(|w| w.expires_at <= now) {
        Some(write) => violated("I4", format!("write {} is past its time to live", write.id)),
        None => Ok(()),
    }
}

/// I5, at rest: the entries on the shadow are exactly the open writes. The caller reads the shadow before it loads the lock.
///
/// # Errors
/// The entries and the open writes, which differ.
pub fn i5_shadow(
    shadow: Option<&ShadowSnapshot>,
    snapshot: &LockSnapshot,
) -> Result<(), Violation> {
    let mut entries = shadow.map(|s| s.entries.clone()).unwrap_or_default();
    let mut open: Vec<WriteId> = snapshot.open().map(|w| w.id).collect();
    entries.sort_unstable();
    open.sort_unstable();
    match entries == open {
        true => Ok(()),
        false => violated(
            "I5",
            format!("the shadow has the entries {entries:?}, and the open writes are {open:?}"),
        ),
    }
}

/// I6: the final result of a write is recorded once, after its request.
///
/// # Errors
/// A write that is settled twice, or without a request before.
pub fn i6_settled_once(stream: &[RecordedEvent]) -> Result<(), Violation> {
    for (at, settled) in stream.iter().enumerate().filter(|(_, e)| is_result(e)) {
        let Some(id) = settled.write else { continue };
        if !requested_writes(&stream[..at]).any(|w| w == id) {
            return violated(
                "I6",
                format!("write {id} is settled and was not requested before"),
            );
        }
        let mut later = stream[at + 1..].iter();
        if later.any(|e| e.write == Some(id) && is_result(e)) {
            return violated("I6", format!("write {id} is settled twice"));
        }
    }
    Ok(())
}

fn is_result(recorded: &RecordedEvent) -> bool {
    matches!(
        recorded.event,
        LockEvent::KeyWriteConfirmed { .. } | LockEvent::KeyWriteFailed { .. }
    )
}
