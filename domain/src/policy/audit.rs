//! Differences between a lock's shadow and its writes (invariant I5).

use crate::model::{DeviceOutcome, LockSnapshot, ShadowSnapshot, Write, WriteId, WriteState};

/// A difference between a lock's shadow and its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The shadow has an entry whose write has ended or does not exist. The lock would execute it.
    UnknownEntry(WriteId),
    /// An open write has no entry, so the lock never sees it.
    LostEntry(WriteId),
    /// The shadow has a result whose write was never sent, or whose result is already recorded. It occupies space.
    StrayResult(WriteId),
    /// The shadow has a result that is not recorded: its report was lost.
    UnheardResult(WriteId),
}

impl Finding {
    /// Every name that [`Finding::name`] returns.
    pub const NAMES: [&'static str; 4] =
        ["UnknownEntry", "LostEntry", "StrayResult", "UnheardResult"];

    /// The kind of the finding, as logs, metrics and the output of an audit name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownEntry(_) => "UnknownEntry",
            Self::LostEntry(_) => "LostEntry",
            Self::StrayResult(_) => "StrayResult",
            Self::UnheardResult(_) => "UnheardResult",
        }
    }

    /// The write that the finding is about. It may not exist.
    pub const fn write(&self) -> WriteId {
        match self {
            Self::UnknownEntry(id)
            | Self::LostEntry(id)
            | Self::StrayResult(id)
            | Self::UnheardResult(id) => *id,
        }
    }
}

/// Compares a shadow with the writes of its lock. `shadow` is `None` if it does not exist.
///
/// The lock must be loaded **after** the shadow was read. An entry is always younger than its intent, so a write that the later
/// load does not have as unfinished had ended by then. `others` are the writes that the shadow names and that are not
/// unfinished in `snapshot`, as the history has them; load them last.
///
/// While the lock has an intent, no entry counts as lost, because the intent's update may have removed it as superseded.
pub fn audit(
    shadow: Option<&ShadowSnapshot>,
    snapshot: &LockSnapshot,
    others: &[Write],
) -> Vec<Finding> {
    let empty = ShadowSnapshot::default();
    let shadow = shadow.unwrap_or(&empty);
    let other = |id: WriteId| others.iter().find(|w| w.id == id);
    // Two locks may have the same thing. Entries and results of the other lock's writes are not findings of this lock.
    let foreign = |id: WriteId| other(id).is_some_and(|w| w.lock != snapshot.lock.id);
    let mut findings = Vec::new();
    for id in &shadow.entries {
        if snapshot.unfinished(*id).is_none() && !foreign(*id) {
            findings.push(Finding::UnknownEntry(*id));
        }
    }
    for result in &shadow.results {
        let id = result.write;
        if let Some(unfinished) = snapshot.unfinished(id) {
            if unfinished.is_open() && result.outcome != DeviceOutcome::InProgress {
                findings.push(Finding::UnheardResult(id));
            }
            continue;
        }
        if snapshot.uncleared.iter().any(|w| w.id == id) || foreign(id) {
            continue;
        }
        match other(id).map(|w| (&w.state, w.next_check_at)) {
            None | Some((WriteState::Aborted { .. }, _)) => {
                findings.push(Finding::StrayResult(id));
            }
            Some((WriteState::Succeeded(_) | WriteState::Failed(..), None)) => {
                findings.push(Finding::StrayResult(id));
            }
            Some((_, None)) => findings.push(Finding::UnheardResult(id)),
            // Maintenance will check the write.
            Some((_, Some(_))) => {}
        }
    }
    if snapshot.prepared().is_none() {
        let on_this_thing = |w: &&Write| Some(&w.thing) == snapshot.lock.thing.as_ref();
        let lost = snapshot
            .open()
            .filter(on_this_thing)
            .filter(|w| !shadow.has_write(w.id));
        findings.extend(lost.map(|w| Finding::LostEntry(w.id)));
    }
    findings
}
