//! The steps of a write as changes of the store: prepare, commit, abort, and what keeps a lock tidy.

use std::time::Duration;

use super::decide::{Limits, Permitted, WriteKey, takes_the_place_of};
use super::ending::last_look;
use crate::anomaly::Anomalies;
use crate::event::{KeySlot, LockEvent, RecordedEvent};
use crate::lock::LockSnapshot;
use crate::ports::Save;
use crate::principal::Principal;
use crate::reason::FailureReason;
use crate::values::{LockVersion, Sequence, ShadowVersion, Timestamp, WriteId};
use crate::write::{Intent, Requested, Write, WriteState};

/// A save that is being put together on one snapshot.
pub(super) struct Draft<'a> {
    snapshot: &'a LockSnapshot,
    now: Timestamp,
    save: Save,
}

impl<'a> Draft<'a> {
    pub(super) fn new(snapshot: &'a LockSnapshot, now: Timestamp) -> Self {
        let save = Save {
            lock: snapshot.lock.id,
            revision: snapshot.revision,
            events: Vec::new(),
            folded: None,
            writes: Vec::new(),
            shadow_version: None,
            kept: None,
            noticed: Vec::new(),
        };
        Self {
            snapshot,
            now,
            save,
        }
    }

    /// Appends an event and answers its version.
    pub(super) fn append(&mut self, write: WriteId, event: LockEvent) -> LockVersion {
        let known = &self.snapshot.lock;
        let lock = self
            .save
            .folded
            .get_or_insert_with(|| Box::new(known.clone()));
        let version = lock.version.next();
        let event = RecordedEvent {
            lock: known.id,
            uuid: known.uuid.clone(),
            version,
            time: self.now,
            write: Some(write),
            event,
        };
        lock.apply(&event)
            .expect("it is of this lock, goes on from its version, and creates nothing");
        self.save.events.push(event);
        version
    }

    pub(super) fn notice(&mut self, write: WriteId, anomalies: Anomalies) {
        let noticed = anomalies.iter().map(|anomaly| (write, anomaly));
        self.save.noticed.extend(noticed);
    }

    pub(super) fn put(&mut self, write: Write) {
        self.save.writes.push(write);
    }

    /// The shadow accepted a prepared write: those that it supersedes and that are still open at this
    /// moment end, then it is requested. Answers the write, which is then SENT and not yet put.
    pub(super) fn request(&mut self, prepared: &Write, limits: &Limits) -> Write {
        let older = |w: &&Write| w.seq < prepared.seq && takes_the_place_of(&prepared.slot, w);
        for superseded in self.snapshot.open().filter(older) {
            self.append(
                superseded.id,
                LockEvent::KeyWriteSuperseded(superseded.slot.clone()),
            );
            let state = WriteState::Superseded { at: self.now };
            self.put(Write {
                state,
                attention: Some(last_look(limits, self.now)),
                ..superseded.clone()
            });
        }
        let event = LockEvent::KeyWriteRequested(prepared.slot.clone());
        let version = self.append(prepared.id, event);
        Write {
            requested: Some(Requested {
                version,
                time: self.now,
            }),
            state: WriteState::Sent,
            attention: Some(
                self.now
                    .after(limits.confirm_within)
                    .min(prepared.expires_at),
            ),
            ..prepared.clone()
        }
    }

    pub(super) fn save(self, shadow_version: Option<ShadowVersion>) -> Save {
        Save {
            shadow_version,
            ..self.save
        }
    }
}

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
        attention: None,
    };
    let mut draft = Draft::new(snapshot, now);
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
    let mut draft = Draft::new(snapshot, now);
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
    let mut draft = Draft::new(snapshot, now);
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
    let mut draft = Draft::new(snapshot, now);
    put_cleared(&mut draft, snapshot, cleared);
    draft.save(Some(shadow_version))
}

/// The write's shadow has been read and has its entry: it is looked at again when it counts as unconfirmed, and
/// from then on whenever it is twice as old, until it expires. So a report that gets lost however late is found
/// in a time like the one that it took, and an open write costs few readings: 11 in 48 h after the first at 60 s. Where
/// the clock was set back since it was sent, its age is not known, and it is looked at again after `confirm_within`.
pub fn postpone(
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
    let mut draft = Draft::new(snapshot, now);
    draft.put(Write {
        attention: Some(next.min(open.expires_at)),
        ..open.clone()
    });
    draft.save(Some(shadow_version))
}

/// Whether maintenance was to look at the write only at a moment that no rule explains at `now`: it was decided by a clock
/// that was ahead. The rules put it off by `confirm_within`, `clear_within`, or the age of an open write.
pub fn is_put_off_too_far(write: &Write, limits: &Limits, now: Timestamp) -> bool {
    let age = write
        .requested
        .map_or(Duration::ZERO, |r| now.since(r.time));
    let age = if write.is_open() { age } else { Duration::ZERO };
    let longest = limits.confirm_within.max(limits.clear_within).max(age);
    write.attention.is_some_and(|at| at > now.after(longest))
}

/// Somebody is about to do something to the write's shadow: maintenance looks at it at that moment in
/// any case, and whatever was decided before this save comes too late.
pub fn revisit(snapshot: &LockSnapshot, open: &Write, at: Timestamp, now: Timestamp) -> Save {
    let mut draft = Draft::new(snapshot, now);
    draft.put(Write {
        attention: Some(at),
        ..open.clone()
    });
    draft.save(None)
}

/// The last look at a write that ended without the lock's word: nothing is left to do.
pub fn rest(
    snapshot: &LockSnapshot,
    ended: &Write,
    shadow_version: Option<ShadowVersion>,
    now: Timestamp,
) -> Save {
    let mut draft = Draft::new(snapshot, now);
    draft.put(Write {
        attention: None,
        ..ended.clone()
    });
    draft.save(shadow_version)
}

fn put_cleared(draft: &mut Draft<'_>, snapshot: &LockSnapshot, cleared: &[WriteId]) {
    for write in snapshot
        .uncleared
        .iter()
        .filter(|w| cleared.contains(&w.id))
    {
        draft.put(Write {
            attention: None,
            ..write.clone()
        });
    }
}
