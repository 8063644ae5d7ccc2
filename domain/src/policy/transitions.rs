//! The steps of a write as changes of the store: prepare, commit, abort, and what keeps a lock tidy.

use std::time::Duration;

use super::admission::{Permitted, WriteKey};
use super::limits::Limits;
use super::save_draft::SaveDraft;
use crate::model::{
    Anomalies, FailureReason, Intent, KeySlot, LockEvent, LockSnapshot, Principal, Save, Sequence,
    ShadowVersion, Timestamp, Write, WriteId, WriteState,
};

/// Step 2: the intent to write, durable before the shadow hears of it. It is not for a lock that has
/// a prepared write. The revision that it is saved on orders it among the lock's writes.
pub fn prepare(
    snapshot: &LockSnapshot,
    command: &WriteKey,
    permitted: &Permitted,
    principal: &Principal,
    (id, intent): (WriteId, Intent),
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    debug_assert!(snapshot.prepared().is_none(), "one intent at a time");
    let write = Write {
        id,
        lock: command.lock,
        uuid: snapshot.lock.uuid.clone(),
        thing: permitted.thing.clone(),
        slot: KeySlot::clone(&command.slot),
        seq: Sequence(snapshot.revision.next().0),
        requested_by: principal.to_string(),
        prepared_at: now,
        expires_at: now.after(limits.time_to_live),
        requested: None,
        state: WriteState::Prepared(intent),
        anomalies: Anomalies::NONE,
        reported_index: None,
        next_check_at: None,
    };
    let mut draft = SaveDraft::new(snapshot, now);
    draft.put(write.clone());
    (write, draft.save(None))
}

/// Step 4: the shadow took the write and has version `accepted` now. `cleared` are the results that
/// the same update took off the shadow.
pub fn commit(
    snapshot: &LockSnapshot,
    prepared: &Write,
    accepted: ShadowVersion,
    cleared: &[WriteId],
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    let mut draft = SaveDraft::new(snapshot, now);
    let sent = draft.request(prepared, limits);
    draft.put(sent.clone());
    put_cleared(&mut draft, snapshot, cleared);
    (sent, draft.save(Some(accepted)))
}

/// Step 5: the shadow certainly does not have the write and never will. No event, and the lock's
/// version stays.
pub fn abort(
    snapshot: &LockSnapshot,
    prepared: &Write,
    reason: &FailureReason,
    shadow_version: Option<ShadowVersion>,
    now: Timestamp,
) -> Save {
    let state = WriteState::Aborted {
        at: now,
        reason: reason.clone(),
    };
    let mut draft = SaveDraft::new(snapshot, now);
    draft.put(Write {
        state,
        ..prepared.clone()
    });
    draft.save(shadow_version)
}

/// The results of these writes are off the shadow.
pub fn clear_results(
    snapshot: &LockSnapshot,
    cleared: &[WriteId],
    shadow_version: ShadowVersion,
    now: Timestamp,
) -> Save {
    let mut draft = SaveDraft::new(snapshot, now);
    put_cleared(&mut draft, snapshot, cleared);
    draft.save(Some(shadow_version))
}

/// The write's shadow has been read and has its entry: it is looked at again when it counts as unconfirmed, and
/// from then on whenever it is twice as old, until it expires. So a report that gets lost however late is found
/// in a time like the one that it took, and an open write costs few readings: 11 in 48 h after the first at 60 s. Where
/// the clock was set back since it was sent, its age is not known, and it is looked at again after `confirm_within`.
pub fn schedule_next_check(
    snapshot: &LockSnapshot,
    open: &Write,
    shadow_version: ShadowVersion,
    limits: &Limits,
    now: Timestamp,
) -> Save {
    let sent = open.requested.map_or(open.prepared_at, |r| r.time);
    let age = now.since(sent);
    let next = if sent > now {
        now.after(limits.confirm_within)
    } else if age < limits.confirm_within {
        sent.after(limits.confirm_within)
    } else {
        sent.after(age * 2)
    };
    let mut draft = SaveDraft::new(snapshot, now);
    draft.put(Write {
        next_check_at: Some(next.min(open.expires_at)),
        ..open.clone()
    });
    draft.save(Some(shadow_version))
}

/// Whether maintenance was to look at the write only at a moment that no rule explains at `now`: it was decided by a clock
/// that was ahead. The rules put it off by `confirm_within`, `clear_within`, or the age of an open write.
pub fn is_scheduled_too_late(write: &Write, limits: &Limits, now: Timestamp) -> bool {
    let age = write
        .requested
        .map_or(Duration::ZERO, |r| now.since(r.time));
    let age = if write.is_open() { age } else { Duration::ZERO };
    let longest = limits.confirm_within.max(limits.clear_within).max(age);
    write
        .next_check_at
        .is_some_and(|at| at > now.after(longest))
}

/// Somebody is about to do something to the write's shadow: maintenance looks at it at that moment in
/// any case, and whatever was decided before this save comes too late.
pub fn schedule_check_at(
    snapshot: &LockSnapshot,
    open: &Write,
    at: Timestamp,
    now: Timestamp,
) -> Save {
    let mut draft = SaveDraft::new(snapshot, now);
    draft.put(Write {
        next_check_at: Some(at),
        ..open.clone()
    });
    draft.save(None)
}

/// The last look at a write that ended without the lock's word: nothing is left to do.
pub fn stop_checking(
    snapshot: &LockSnapshot,
    ended: &Write,
    shadow_version: Option<ShadowVersion>,
    now: Timestamp,
) -> Save {
    let mut draft = SaveDraft::new(snapshot, now);
    draft.put(Write {
        next_check_at: None,
        ..ended.clone()
    });
    draft.save(shadow_version)
}

fn put_cleared(draft: &mut SaveDraft<'_>, snapshot: &LockSnapshot, cleared: &[WriteId]) {
    for write in snapshot
        .uncleared
        .iter()
        .filter(|w| cleared.contains(&w.id))
    {
        draft.put(Write {
            next_check_at: None,
            ..write.clone()
        });
    }
}

/// Why a write is taken off the shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Its time to live is over.
    Expired,
    /// Someone took it back.
    Withdrawn,
}

/// Ends an open write, once an update of the shadow at the version that was read has taken its entry
/// off; `accepted` is the version after that update. The snapshot is older than that update, so that
/// nobody who put the entry back in between goes unnoticed.
pub fn terminate(
    snapshot: &LockSnapshot,
    open: &Write,
    ending: Termination,
    accepted: ShadowVersion,
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    let (state, event) = match ending {
        Termination::Expired => (
            WriteState::Expired { at: now },
            LockEvent::KeyWriteExpired(open.slot.clone()),
        ),
        Termination::Withdrawn => (
            WriteState::Withdrawn { at: now },
            LockEvent::KeyWriteWithdrawn(open.slot.clone()),
        ),
    };
    let mut draft = SaveDraft::new(snapshot, now);
    draft.append(open.id, event);
    let ended = Write {
        state,
        next_check_at: Some(limits.final_check_at(now)),
        ..open.clone()
    };
    draft.put(ended.clone());
    (ended, draft.save(Some(accepted)))
}
