//! What always holds, written once: tests, models and audits all ask here. The numbers are those of
//! ARCHITECTURE.md.

use crate::model::{
    Lock, LockEvent, LockSnapshot, RecordedEvent, ShadowSnapshot, Timestamp, Write, WriteId,
    WriteState,
};
use crate::usecase::{WriteError, WriteReceipt};

/// An invariant that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} does not hold: {what}")]
pub struct Violation {
    /// `I1`, `I2`, …
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

fn violated(invariant: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { invariant, what })
}

/// I1: versions are 1, 2, 3 … without gap or twin, the events fold, and one write has at most one
/// `KeyWriteRequested`.
///
/// # Errors
/// The first place where it does not hold.
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

/// I1: a 200 has its event in the stream.
///
/// # Errors
/// The event is missing or is another one.
pub fn i1_answered(answer: &WriteReceipt, stream: &[RecordedEvent]) -> Result<(), Violation> {
    let stands = match &answer.event {
        Some(event) => stream.contains(event),
        None => requested_writes(stream).any(|id| id == answer.write),
    };
    if stands {
        return Ok(());
    }
    violated(
        "I1",
        format!(
            "write {} was answered 200 and is not in the stream",
            answer.write
        ),
    )
}

/// I2: an aborted write has no event, and its key is not on the shadow.
///
/// # Errors
/// It has one, or it is there.
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
    if shadow.is_some_and(|s| s.knows(write.id)) {
        return violated("I2", format!("aborted write {} is on the shadow", write.id));
    }
    Ok(())
}

/// I2 and I3: what the caller was told is what the store says. An error that promises that nothing
/// happened is given only for a write that was aborted or never prepared.
///
/// # Errors
/// The answer and the store differ.
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

/// I4, at rest: no intent is left open, and no open write is past its time to live.
///
/// # Errors
/// The write that is left over.
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

/// I5, at rest: the entries on the shadow are exactly the open writes. Read the shadow first.
///
/// # Errors
/// The entries that differ.
pub fn i5_shadow(
    shadow: Option<&ShadowSnapshot>,
    snapshot: &LockSnapshot,
) -> Result<(), Violation> {
    let mut entries = shadow.map(|s| s.entries.clone()).unwrap_or_default();
    let mut open: Vec<WriteId> = snapshot.open().map(|w| w.id).collect();
    entries.sort_unstable();
    open.sort_unstable();
    if entries == open {
        return Ok(());
    }
    violated(
        "I5",
        format!("the shadow has {entries:?}, and open are {open:?}"),
    )
}

/// I6: the lock's word on a write is recorded once, and after the request.
///
/// # Errors
/// The write whose events are out of order or repeated.
pub fn i6_settled_once(stream: &[RecordedEvent]) -> Result<(), Violation> {
    let words = stream.iter().enumerate().filter(|(_, e)| {
        matches!(
            e.event,
            LockEvent::KeyWriteConfirmed { .. } | LockEvent::KeyWriteFailed { .. }
        )
    });
    for (at, word) in words {
        let Some(id) = word.write else { continue };
        if !requested_writes(&stream[..at]).any(|w| w == id) {
            return violated(
                "I6",
                format!("write {id} is settled and was not requested before"),
            );
        }
        let again = stream[at + 1..].iter().any(|e| {
            e.write == Some(id)
                && matches!(
                    e.event,
                    LockEvent::KeyWriteConfirmed { .. } | LockEvent::KeyWriteFailed { .. }
                )
        });
        if again {
            return violated("I6", format!("write {id} is settled twice"));
        }
    }
    Ok(())
}
