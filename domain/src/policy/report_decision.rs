//! Decides what a lock's report changes.

use super::limits::Limits;
use super::save_draft::SaveDraft;
use crate::model::{
    Anomalies, Anomaly, DeviceOutcome, KeyIndex, KeySlot, LockEvent, LockSnapshot, ReportedSlot,
    Save, Settled, ShadowVersion, ThingName, Timestamp, Write, WriteState,
};

/// The decision on one result of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportDecision {
    /// The result is new. Make this save; the write is as it is afterwards.
    Record(Box<Write>, Save),
    /// The result changes nothing.
    Ignore(IgnoreReason),
}

/// Why a result changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IgnoreReason {
    /// The lock has reported the same before.
    Repeated,
    /// The write does not exist or never reached the shadow. The lock or this service is faulty.
    Contradiction,
    /// The result is from another thing than the one that the write was prepared for.
    WrongThing,
    /// The lock is executing a write that is not committed yet. The commit needs no help of this report.
    Early,
}

/// One result of a report.
#[derive(Clone, Debug)]
pub struct ReportedResult<'a> {
    /// The thing whose shadow has the result.
    pub thing: &'a ThingName,
    /// The version of the shadow that has the result, if it is known.
    pub shadow_version: Option<ShadowVersion>,
    /// The outcome that the lock reports.
    pub outcome: &'a DeviceOutcome,
    /// Whether the write's entry is known to be on the shadow, too.
    pub entry_remains: bool,
}

/// Decides on one result. `write` is the write with the result's id, as the snapshot or the history has it; `None`: there is no
/// such write.
///
/// A result that arrives before the commit of its write proves that the shadow accepted the write. One save then records the
/// request and the result (I6). A result that arrives after the write ended otherwise is recorded as late, so that the events
/// tell what the lock did. Violations of the device contract are recorded as anomalies.
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
            record_repeated(snapshot, write, reported, limits, now)
        }
        WriteState::Prepared(_)
        | WriteState::Sent
        | WriteState::InProgress
        | WriteState::Expired { .. }
        | WriteState::Superseded { .. }
        | WriteState::Withdrawn { .. } => settle(snapshot, write, reported, limits, now),
    }
}

const fn index_of(slot: ReportedSlot) -> Option<KeyIndex> {
    match slot {
        ReportedSlot::Index(index) => Some(index),
        ReportedSlot::Missing | ReportedSlot::Unreadable => None,
    }
}

/// The anomalies of a result that the write does not have yet.
fn new_anomalies(write: &Write, reported: &ReportedResult<'_>) -> Anomalies {
    let of_outcome = match reported.outcome {
        DeviceOutcome::InProgress => return Anomalies::new(),
        DeviceOutcome::Unreadable => Some(Anomaly::UnreadableResult),
        DeviceOutcome::Failed(_) => None,
        DeviceOutcome::Succeeded { slot } => match slot {
            ReportedSlot::Missing => Some(Anomaly::MissingSlot),
            ReportedSlot::Unreadable => Some(Anomaly::UnreadableSlot),
            ReportedSlot::Index(index) => {
                let is_other = write.slot.index.is_some_and(|asked| asked != *index);
                is_other.then_some(Anomaly::OtherSlot)
            }
        },
    };
    let contradicts = contradicts(write, reported.outcome);
    let is_final = *reported.outcome != DeviceOutcome::Unreadable;
    let found = [
        of_outcome,
        contradicts.then_some(Anomaly::ContradictingResult),
        (reported.entry_remains && is_final).then_some(Anomaly::EntryLeft),
    ];
    let found = found.into_iter().flatten();
    found.filter(|a| !write.anomalies.contains(a)).collect()
}

/// Whether the lock has reported another final result before.
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

/// The reported slot, if it differs from the requested one.
fn reported_index(write: &Write, outcome: &DeviceOutcome) -> Option<KeyIndex> {
    match outcome {
        DeviceOutcome::Succeeded { slot } => {
            index_of(*slot).filter(|index| write.slot.index != Some(*index))
        }
        _ => None,
    }
}

/// Decides on a result of a write that the lock has already settled. The first result stays recorded; new anomalies are added.
fn record_repeated(
    snapshot: &LockSnapshot,
    write: &Write,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let in_progress = *reported.outcome == DeviceOutcome::InProgress;
    let new_anomalies = new_anomalies(write, reported);
    if in_progress || (write.next_check_at.is_some() && new_anomalies.is_empty()) {
        return ReportDecision::Ignore(IgnoreReason::Repeated);
    }
    // A result that was cleared and is on the shadow again has to be cleared again.
    let again = now.after(limits.clear_within);
    let after = Write {
        next_check_at: write.next_check_at.or(Some(again)),
        reported_index: write
            .reported_index
            .or_else(|| reported_index(write, reported.outcome)),
        ..write.clone()
    };
    let draft = SaveDraft::new(snapshot, now);
    record(snapshot, draft, after, &new_anomalies, reported)
}

/// Decides on a result without a final outcome: the lock is executing the write, or the result is unreadable.
fn record_without_outcome(
    snapshot: &LockSnapshot,
    write: &Write,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let new_anomalies = new_anomalies(write, reported);
    let unreadable = *reported.outcome == DeviceOutcome::Unreadable;
    let soon = now.after(limits.clear_within);
    let mut after = write.clone();
    match &write.state {
        // The result is still on the shadow after the commit.
        WriteState::Prepared(_) => return ReportDecision::Ignore(IgnoreReason::Early),
        // The next check clears the unreadable result.
        WriteState::Sent | WriteState::InProgress if unreadable => {
            after.next_check_at = Some(write.next_check_at.map_or(soon, |at| at.min(soon)));
        }
        WriteState::InProgress => return ReportDecision::Ignore(IgnoreReason::Repeated),
        WriteState::Sent => after.state = WriteState::InProgress,
        // The write has ended. If no check is scheduled, nothing else would clear the result.
        _ => after.next_check_at = write.next_check_at.or(Some(soon)),
    }
    if after == *write && new_anomalies.is_empty() {
        return ReportDecision::Ignore(IgnoreReason::Repeated);
    }
    let draft = SaveDraft::new(snapshot, now);
    record(snapshot, draft, after, &new_anomalies, reported)
}

/// Records the first final result of a write.
fn settle(
    snapshot: &LockSnapshot,
    write: &Write,
    reported: &ReportedResult<'_>,
    limits: &Limits,
    now: Timestamp,
) -> ReportDecision {
    let late = write.intent().is_none() && !write.is_open();
    let settled = Settled { at: now, late };
    let (state, event) = match reported.outcome {
        DeviceOutcome::InProgress | DeviceOutcome::Unreadable => {
            return record_without_outcome(snapshot, write, reported, limits, now);
        }
        DeviceOutcome::Succeeded { slot } => {
            let slot = KeySlot {
                key: write.slot.key.clone(),
                index: index_of(*slot).or(write.slot.index),
            };
            let event = LockEvent::KeyWriteConfirmed { slot, late };
            (WriteState::Succeeded(settled), event)
        }
        DeviceOutcome::Failed(reason) => {
            let event = LockEvent::KeyWriteFailed {
                slot: write.slot.clone(),
                reason: reason.clone(),
                late,
            };
            (WriteState::Failed(reason.clone(), settled), event)
        }
    };
    let mut draft = SaveDraft::new(snapshot, now);
    let current = match write.intent() {
        Some(_) => draft.request(write, limits),
        None => write.clone(),
    };
    draft.append(write.id, &write.cause, event);
    let after = Write {
        state,
        next_check_at: Some(now.after(limits.clear_within)),
        reported_index: reported_index(write, reported.outcome),
        ..current
    };
    let new_anomalies = new_anomalies(write, reported);
    record(snapshot, draft, after, &new_anomalies, reported)
}

/// Records what a result has changed of a write.
fn record(
    snapshot: &LockSnapshot,
    mut draft: SaveDraft<'_>,
    mut after: Write,
    new_anomalies: &Anomalies,
    reported: &ReportedResult<'_>,
) -> ReportDecision {
    after.anomalies.extend(new_anomalies);
    draft.add_anomalies(after.id, new_anomalies);
    draft.put(after.clone());
    // Reports can overtake each other, so the higher version is the likelier one. A wrong version costs only a conflict.
    let version = reported.shadow_version.max(snapshot.shadow_version);
    ReportDecision::Record(Box::new(after), draft.save(version))
}
