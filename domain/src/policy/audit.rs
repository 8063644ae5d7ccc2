//! What stands on a shadow that should not, and what should and does not (I5).

use crate::model::{DeviceOutcome, LockSnapshot, ShadowSnapshot, Write, WriteId, WriteState};

/// Something that differs between a lock's shadow and its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An entry of a write that is over, or that was never given out: the lock would do it.
    UnknownEntry(WriteId),
    /// An open write without its entry: the lock will never hear of it.
    LostEntry(WriteId),
    /// A result of a write that was never sent, or that is done with: it takes room.
    StrayResult(WriteId),
    /// A result that is not recorded yet: a report got lost.
    UnheardResult(WriteId),
}

impl Finding {
    /// The names of all kinds.
    pub const NAMES: [&'static str; 4] =
        ["UnknownEntry", "LostEntry", "StrayResult", "UnheardResult"];

    /// What was found, as a name that programs read.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownEntry(_) => "UnknownEntry",
            Self::LostEntry(_) => "LostEntry",
            Self::StrayResult(_) => "StrayResult",
            Self::UnheardResult(_) => "UnheardResult",
        }
    }

    /// Whose it is.
    pub const fn write(&self) -> WriteId {
        match self {
            Self::UnknownEntry(id)
            | Self::LostEntry(id)
            | Self::StrayResult(id)
            | Self::UnheardResult(id) => *id,
        }
    }
}

/// Compares a shadow with the lock as it was loaded **after** the shadow was read: an entry is always younger than the
/// intent that it is of, so that one which is unknown to the later reading was over by then. `others` are the writes
/// that the shadow names and that the lock has no more to do with, as the history has them.
///
/// While an intent is open, the shadow is in its hands, and what seems to be lost may be what it supersedes.
pub fn audit(
    shadow: Option<&ShadowSnapshot>,
    snapshot: &LockSnapshot,
    others: &[Write],
) -> Vec<Finding> {
    let nothing = ShadowSnapshot::default();
    let shadow = shadow.unwrap_or(&nothing);
    let other = |id: WriteId| others.iter().find(|w| w.id == id);
    // Two locks may name one thing; the entry of the other's write is not ours to judge.
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
            // Maintenance is going to look at it.
            Some((_, Some(_))) => {}
        }
    }
    if snapshot.prepared().is_none() {
        let on_this_thing = |w: &&Write| Some(&w.thing) == snapshot.lock.thing.as_ref();
        let lost = snapshot
            .open()
            .filter(on_this_thing)
            .filter(|w| !shadow.knows(w.id));
        findings.extend(lost.map(|w| Finding::LostEntry(w.id)));
    }
    findings
}
