//! State transitions of writes as saves: prepare, commit, abort, terminate, and the scheduling of maintenance.

use std::time::Duration;

use super::limits::Limits;
use super::save_draft::SaveDraft;
use crate::model::{
    Anomalies, Cause, FailureReason, Intent, KeySlot, LockEvent, LockSnapshot, Save, Sequence,
    ShadowVersion, ThingName, Timestamp, Write, WriteId, WriteState,
};

/// A permitted write that is not prepared yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWrite<'a> {
    /// The id of the write, which no other write has.
    pub id: WriteId,
    /// The thing whose shadow reaches the lock, as [`decide_write`](super::decide_write) has returned it.
    pub thing: &'a ThingName,
    /// The key and slot as requested.
    pub slot: &'a KeySlot,
    /// The request for the write.
    pub cause: Cause,
    /// The process that acts on the write, epoch 1, and the lease.
    pub intent: Intent,
}

/// Step 2: prepares a write. Its intent is durable before the shadow is updated. The revision that the save creates becomes the
/// write's `seq`.
///
/// The lock must not have a prepared write; debug builds panic if it has one.
pub fn prepare(
    snapshot: &LockSnapshot,
    new: &NewWrite<'_>,
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    debug_assert!(
        snapshot.prepared().is_none(),
        "a lock has at most one intent"
    );
    let write = Write {
        id: new.id,
        lock: snapshot.lock.id,
        uuid: snapshot.lock.uuid.clone(),
        thing: new.thing.clone(),
        slot: new.slot.clone(),
        seq: Sequence(snapshot.revision.next().0),
        cause: new.cause.clone(),
        prepared_at: now,
        expires_at: now.after(limits.time_to_live),
        requested: None,
        state: WriteState::Prepared(new.intent),
        anomalies: Anomalies::new(),
        reported_index: None,
        next_check_at: None,
    };
    let draft = SaveDraft::of_write(snapshot, write.clone(), now);
    (write, draft.save(None))
}

/// Step 4: commits a prepared write after the shadow has accepted it and has version `accepted` now. `cleared` are the writes
/// whose results the same update has cleared. Returns the write, now SENT.
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

/// Step 5: aborts a prepared write that the shadow does not have and will never accept. It appends no event, so the lock's version
/// stays as it was.
pub fn abort(
    snapshot: &LockSnapshot,
    prepared: &Write,
    reason: &FailureReason,
    shadow_version: Option<ShadowVersion>,
    now: Timestamp,
) -> Save {
    let mut aborted = prepared.clone();
    aborted.state = WriteState::Aborted {
        at: now,
        reason: reason.clone(),
    };
    SaveDraft::of_write(snapshot, aborted, now).save(shadow_version)
}

/// Records that an update has cleared the results of these writes from the shadow, which has version `shadow_version` now.
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

/// Schedules the next check of an open write whose shadow has just been read and has its entry.
///
/// The first check is when the write counts as unconfirmed, each further one when it is twice as old, and the last one when it
/// expires. So a lost report is found after at most the time that the lock took to send it, and an open write costs 11 reads in
/// 48 h after the first one at 60 s. If the clock has been set back since the write was sent, its age is unknown, and the next
/// check is after `confirm_within`.
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
    let next = next.min(open.expires_at);
    schedule_check(snapshot, open, Some(next), Some(shadow_version), now)
}

/// Whether the next check of the write is later than any rule schedules it at `now`. A clock that was ahead has scheduled it then.
/// The rules schedule checks after `confirm_within`, `clear_within`, or the age of an open write.
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

/// Schedules the next check of a write for `at`; `None`: its final check is done. If it is called before the shadow of the write is
/// updated, maintenance repairs an update that is cut short, and every save that was decided before this one becomes stale.
pub fn schedule_check(
    snapshot: &LockSnapshot,
    write: &Write,
    at: Option<Timestamp>,
    shadow_version: Option<ShadowVersion>,
    now: Timestamp,
) -> Save {
    let mut after = write.clone();
    after.next_check_at = at;
    SaveDraft::of_write(snapshot, after, now).save(shadow_version)
}

fn put_cleared(draft: &mut SaveDraft<'_>, snapshot: &LockSnapshot, cleared: &[WriteId]) {
    let uncleared = snapshot.uncleared.iter();
    for write in uncleared.filter(|w| cleared.contains(&w.id)) {
        draft.put(Write {
            next_check_at: None,
            ..write.clone()
        });
    }
}

/// Why an open write is removed from the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Its time to live is over.
    Expired,
    /// This request withdrew it.
    Withdrawn(Cause),
}

/// Ends an open write after a conditional update has removed its entry from the shadow, which has version `accepted` now.
///
/// The snapshot must be older than that update. If a process has restored the entry in between, the save is stale. Returns the
/// write as it is afterwards.
pub fn terminate(
    snapshot: &LockSnapshot,
    open: &Write,
    termination: &Termination,
    accepted: ShadowVersion,
    limits: &Limits,
    now: Timestamp,
) -> (Write, Save) {
    let (cause, state, event) = match termination {
        Termination::Expired => (
            &open.cause,
            WriteState::Expired { at: now },
            LockEvent::KeyWriteExpired(open.slot.clone()),
        ),
        Termination::Withdrawn(cause) => (
            cause,
            WriteState::Withdrawn { at: now },
            LockEvent::KeyWriteWithdrawn(open.slot.clone()),
        ),
    };
    let mut draft = SaveDraft::new(snapshot, now);
    draft.append(open.id, cause, event);
    let ended = Write {
        state,
        next_check_at: Some(limits.final_check_at(now)),
        ..open.clone()
    };
    draft.put(ended.clone());
    (ended, draft.save(Some(accepted)))
}
