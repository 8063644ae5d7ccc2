//! What a lock's report changes.

use super::decide::Limits;
use super::draft::Draft;
use crate::event::{KeySlot, LockEvent};
use crate::lock::LockSnapshot;
use crate::ports::{DeviceOutcome, Save};
use crate::values::{ShadowVersion, ThingName, Timestamp};
use crate::write::{Settled, Write, WriteState};

/// What to make of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportDecision {
    /// It says something new: save it. The write is as it is afterwards.
    Record(Box<Write>, Save),
    /// It changes nothing.
    Ignore(Ignored),
}

/// Why a report changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The lock has said how this write ended, or that it is at it, before.
    Repeated,
    /// No such write, or one that never reached a shadow: either the lock or we are wrong.
    Contradiction,
    /// Another thing than the one that the write was prepared for.
    WrongThing,
    /// The lock is at a write whose update is not committed yet; the commit will come by itself.
    Early,
}

/// Decides on one result. `write` is the write of its id, as the snapshot or the history has it.
///
/// A result that comes before the commit of its write proves that the shadow took the write: it is
/// requested and settled in one save (I6). One that comes after the write ended otherwise is recorded
/// as late: what the lock did is never hidden.
pub fn decide_report(
    snapshot: &LockSnapshot,
    write: Option<&Write>,
    thing: &ThingName,
    shadow_version: Option<ShadowVersion>,
    outcome: &DeviceOutcome,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let Some(write) = write else {
        return ReportDecision::Ignore(Ignored::Contradiction);
    };
    if write.thing != *thing {
        return ReportDecision::Ignore(Ignored::WrongThing);
    }
    let at_it = *outcome == DeviceOutcome::InProgress;
    let mut draft = Draft::new(snapshot, now);
    let (current, late) = match &write.state {
        WriteState::Aborted { .. } => return ReportDecision::Ignore(Ignored::Contradiction),
        WriteState::Succeeded(_) | WriteState::Failed(..) => {
            if write.attention.is_some() || at_it {
                return ReportDecision::Ignore(Ignored::Repeated);
            }
            // The result was cleared and stands on the shadow again: it is to be cleared again.
            let attention = Some(now.after(limits.clear_within));
            let after = Write {
                attention,
                ..write.clone()
            };
            draft.put(after.clone());
            let save = draft.save(shadow_version.max(snapshot.shadow_version));
            return ReportDecision::Record(Box::new(after), save);
        }
        WriteState::InProgress if at_it => return ReportDecision::Ignore(Ignored::Repeated),
        WriteState::Prepared(_) if at_it => return ReportDecision::Ignore(Ignored::Early),
        WriteState::Prepared(_) => (draft.request(write, limits), false),
        WriteState::Sent | WriteState::InProgress => (write.clone(), false),
        WriteState::Expired { .. }
        | WriteState::Superseded { .. }
        | WriteState::Withdrawn { .. } => {
            if at_it {
                return match write.attention {
                    Some(_) => ReportDecision::Ignore(Ignored::Repeated),
                    // The result stands on the shadow, and nobody was going to take it off.
                    None => {
                        let after = Write {
                            attention: Some(now.after(limits.clear_within)),
                            ..write.clone()
                        };
                        draft.put(after.clone());
                        let save = draft.save(shadow_version.max(snapshot.shadow_version));
                        ReportDecision::Record(Box::new(after), save)
                    }
                };
            }
            (write.clone(), true)
        }
    };
    let settled = Settled { at: now, late };
    let (state, event) = match outcome {
        DeviceOutcome::InProgress => (WriteState::InProgress, None),
        DeviceOutcome::Succeeded { index } => {
            let slot = KeySlot {
                key: write.slot.key.clone(),
                index: index.or(write.slot.index),
            };
            let event = LockEvent::KeyWriteConfirmed { slot, late };
            (WriteState::Succeeded(settled), Some(event))
        }
        DeviceOutcome::Failed(reason) => {
            let (slot, reason) = (write.slot.clone(), reason.clone());
            let event = LockEvent::KeyWriteFailed {
                slot,
                reason: reason.clone(),
                late,
            };
            (WriteState::Failed(reason, settled), Some(event))
        }
    };
    let attention = match event {
        Some(_) => Some(now.after(limits.clear_within)),
        None => current.attention,
    };
    if let Some(event) = event {
        draft.append(write.id, event);
    }
    let after = Write {
        state,
        attention,
        ..current
    };
    draft.put(after.clone());
    // Reports overtake each other, and the version only spares a conflict: the higher one is likelier.
    ReportDecision::Record(
        Box::new(after),
        draft.save(shadow_version.max(snapshot.shadow_version)),
    )
}
