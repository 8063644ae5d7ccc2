//! What a lock's report changes.

use super::limits::Limits;
use super::save_draft::SaveDraft;
use crate::model::{
    Anomalies, Anomaly, DeviceOutcome, FailureReason, KeyIndex, KeySlot, LockEvent, LockSnapshot,
    ReportedSlot, Save, Settled, ShadowVersion, ThingName, Timestamp, Write, WriteState,
};

/// What to make of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportDecision {
    /// It says something new: save it. The write is as it is afterwards.
    Record(Box<Write>, Save),
    /// It changes nothing.
    Ignore(IgnoreReason),
}

/// Why a report changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The lock has said how this write ended, or that it is at it, before.
    Repeated,
    /// No such write, or one that never reached a shadow: either the lock or we are wrong.
    Contradiction,
    /// Another thing than the one that the write was prepared for.
    WrongThing,
    /// The lock is at a write whose update is not committed yet; the commit will come by itself.
    Early,
}

/// One result as it was reported.
#[derive(Clone, Debug)]
pub struct ReportedResult<'a> {
    /// The thing whose shadow it stands on.
    pub thing: &'a ThingName,
    /// The shadow's version with it.
    pub shadow_version: Option<ShadowVersion>,
    /// What the lock said.
    pub outcome: &'a DeviceOutcome,
    /// The write's entry is known to stand on the shadow beside it.
    pub entry_remains: bool,
}

/// Decides on one result. `write` is the write of its id, as the snapshot or the history has it.
///
/// A result that comes before the commit of its write proves that the shadow took the write: it is
/// requested and settled in one save (I6). One that comes after the write ended otherwise is recorded
/// as late: what the lock did is never hidden. What the device contract rules out is recorded as an anomaly.
pub fn decide_report(
    snapshot: &LockSnapshot,
    write: Option<&Write>,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let Some(write) = write else {
        return ReportDecision::Ignore(IgnoreReason::Contradiction);
    };
    if write.thing != *reported.thing {
        return ReportDecision::Ignore(IgnoreReason::WrongThing);
    }
    match &write.state {
        WriteState::Aborted { .. } => ReportDecision::Ignore(IgnoreReason::Contradiction),
        WriteState::Succeeded(_) | WriteState::Failed(..) => {
            said_before(snapshot, write, reported, limits, now)
        }
        WriteState::Prepared(_)
        | WriteState::Sent
        | WriteState::InProgress
        | WriteState::Expired { .. }
        | WriteState::Superseded { .. }
        | WriteState::Withdrawn { .. } => match outcome_of(write, reported.outcome) {
            Some(outcome) => settle(snapshot, write, outcome, reported, limits, now),
            None => without_outcome(snapshot, write, reported, limits, now),
        },
    }
}

/// How a write ends.
enum Outcome {
    /// With the key in this slot.
    Confirmed(KeySlot),
    Failed(FailureReason),
}

/// `None`: the result does not say.
fn outcome_of(write: &Write, outcome: &DeviceOutcome) -> Option<Outcome> {
    match outcome {
        DeviceOutcome::InProgress | DeviceOutcome::Unreadable => None,
        DeviceOutcome::Succeeded { slot } => Some(Outcome::Confirmed(KeySlot {
            key: write.slot.key.clone(),
            index: index_of(*slot).or(write.slot.index),
        })),
        DeviceOutcome::Failed(reason) => Some(Outcome::Failed(reason.clone())),
    }
}

const fn index_of(slot: ReportedSlot) -> Option<KeyIndex> {
    match slot {
        ReportedSlot::Index(index) => Some(index),
        ReportedSlot::Missing | ReportedSlot::Unreadable => None,
    }
}

/// What is odd about a result, and was not before.
fn anomalies_of(write: &Write, reported: &ReportedResult<'_>) -> Anomalies {
    let mut found = Anomalies::NONE;
    match reported.outcome {
        DeviceOutcome::InProgress => return found,
        DeviceOutcome::Unreadable => found.insert(Anomaly::UnreadableResult),
        DeviceOutcome::Succeeded { slot } => {
            let asked = write.slot.index;
            match slot {
                ReportedSlot::Missing => found.insert(Anomaly::MissingSlot),
                ReportedSlot::Unreadable => found.insert(Anomaly::UnreadableSlot),
                ReportedSlot::Index(index) if asked.is_some_and(|asked| asked != *index) => {
                    found.insert(Anomaly::OtherSlot);
                }
                ReportedSlot::Index(_) => {}
            }
        }
        DeviceOutcome::Failed(_) => {}
    }
    if contradicts(write, reported.outcome) {
        found.insert(Anomaly::ContradictingResult);
    }
    let says_how_it_ended = *reported.outcome != DeviceOutcome::Unreadable;
    if reported.entry_remains && says_how_it_ended {
        found.insert(Anomaly::EntryLeft);
    }
    found.without(write.anomalies)
}

/// The lock has said something else before.
fn contradicts(write: &Write, outcome: &DeviceOutcome) -> bool {
    match (&write.state, outcome) {
        (WriteState::Succeeded(_), DeviceOutcome::Failed(_))
        | (WriteState::Failed(..), DeviceOutcome::Succeeded { .. }) => true,
        (WriteState::Succeeded(_), DeviceOutcome::Succeeded { slot }) => {
            let before = write.reported_index.or(write.slot.index);
            let now = index_of(*slot);
            before.is_some() && now.is_some() && before != now
        }
        _ => false,
    }
}

/// The slot to keep with the write, where the lock names another one than was asked for.
fn reported_index(write: &Write, outcome: &DeviceOutcome) -> Option<KeyIndex> {
    match outcome {
        DeviceOutcome::Succeeded { slot } => {
            index_of(*slot).filter(|index| write.slot.index != Some(*index))
        }
        _ => None,
    }
}

/// The lock has said how the write ended, and says something again: the first answer stays.
fn said_before(
    snapshot: &LockSnapshot,
    write: &Write,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let in_progress = *reported.outcome == DeviceOutcome::InProgress;
    let new_anomalies = anomalies_of(write, reported);
    if in_progress || (write.next_check_at.is_some() && new_anomalies.is_empty()) {
        return ReportDecision::Ignore(IgnoreReason::Repeated);
    }
    // Where the result was cleared before and stands on the shadow again, it is to be cleared again.
    let again = now.after(limits.clear_within);
    let after = Write {
        next_check_at: write.next_check_at.or(Some(again)),
        anomalies: write.anomalies.and(new_anomalies),
        reported_index: write
            .reported_index
            .or_else(|| reported_index(write, reported.outcome)),
        ..write.clone()
    };
    record(snapshot, after, new_anomalies, reported, now)
}

/// The lock is at it, or its result cannot be read.
fn without_outcome(
    snapshot: &LockSnapshot,
    write: &Write,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let new_anomalies = anomalies_of(write, reported);
    let unreadable = *reported.outcome == DeviceOutcome::Unreadable;
    let soon = now.after(limits.clear_within);
    let after = match &write.state {
        // The commit comes by itself, and the result still stands on the shadow then.
        WriteState::Prepared(_) => return ReportDecision::Ignore(IgnoreReason::Early),
        // It is looked at in time to take the result off.
        WriteState::Sent | WriteState::InProgress if unreadable => Write {
            next_check_at: Some(write.next_check_at.map_or(soon, |at| at.min(soon))),
            ..write.clone()
        },
        WriteState::InProgress => return ReportDecision::Ignore(IgnoreReason::Repeated),
        WriteState::Sent => Write {
            state: WriteState::InProgress,
            ..write.clone()
        },
        // The result stands on the shadow, and nobody may be going to take it off.
        _ => Write {
            next_check_at: write.next_check_at.or(Some(soon)),
            ..write.clone()
        },
    };
    if after == *write && new_anomalies.is_empty() {
        return ReportDecision::Ignore(IgnoreReason::Repeated);
    }
    let after = Write {
        anomalies: write.anomalies.and(new_anomalies),
        ..after
    };
    record(snapshot, after, new_anomalies, reported, now)
}

/// The lock says for the first time how the write ended.
fn settle(
    snapshot: &LockSnapshot,
    write: &Write,
    outcome: Outcome,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let mut draft = SaveDraft::new(snapshot, now);
    let (current, late) = match &write.state {
        WriteState::Prepared(_) => (draft.request(write, limits), false),
        WriteState::Sent | WriteState::InProgress => (write.clone(), false),
        _ => (write.clone(), true),
    };
    let settled = Settled { at: now, late };
    let (state, event) = match outcome {
        Outcome::Confirmed(slot) => (
            WriteState::Succeeded(settled),
            LockEvent::KeyWriteConfirmed { slot, late },
        ),
        Outcome::Failed(reason) => {
            let event = LockEvent::KeyWriteFailed {
                slot: write.slot.clone(),
                reason: reason.clone(),
                late,
            };
            (WriteState::Failed(reason, settled), event)
        }
    };
    draft.append(write.id, event);
    let new_anomalies = anomalies_of(write, reported);
    draft.notice(write.id, new_anomalies);
    let after = Write {
        state,
        next_check_at: Some(now.after(limits.clear_within)),
        anomalies: write.anomalies.and(new_anomalies),
        reported_index: reported_index(write, reported.outcome),
        ..current
    };
    draft.put(after.clone());
    let version = likelier_version(snapshot, reported);
    ReportDecision::Record(Box::new(after), draft.save(version))
}

/// Saves a write that goes on as it was, but for what is kept beside its state.
fn record(
    snapshot: &LockSnapshot,
    after: Write,
    new_anomalies: Anomalies,
    reported: &ReportedResult<'_>,
    now: Timestamp,
) -> ReportDecision {
    let mut draft = SaveDraft::new(snapshot, now);
    draft.notice(after.id, new_anomalies);
    draft.put(after.clone());
    let version = likelier_version(snapshot, reported);
    ReportDecision::Record(Box::new(after), draft.save(version))
}

/// Reports overtake each other, and the version only spares a conflict: the higher one is likelier.
fn likelier_version(
    snapshot: &LockSnapshot,
    reported: &ReportedResult<'_>,
) -> Option<ShadowVersion> {
    reported.shadow_version.max(snapshot.shadow_version)
}
