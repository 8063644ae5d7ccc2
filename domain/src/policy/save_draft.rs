//! Builds a [`Save`] from a snapshot of a lock.

use super::admission::supersedes;
use super::limits::Limits;
use crate::model::{
    Anomalies, Cause, LockEvent, LockSnapshot, LockVersion, RecordedEvent, Requested, Save,
    ShadowVersion, Timestamp, Write, WriteId, WriteState,
};

/// A save under construction, based on one snapshot.
pub(super) struct SaveDraft<'a> {
    snapshot: &'a LockSnapshot,
    now: Timestamp,
    save: Save,
}

impl<'a> SaveDraft<'a> {
    pub(super) fn new(snapshot: &'a LockSnapshot, now: Timestamp) -> Self {
        let save = Save {
            lock: snapshot.lock.id,
            revision: snapshot.revision,
            events: Vec::new(),
            folded: None,
            writes: Vec::new(),
            shadow_version: None,
            idempotency: None,
            new_anomalies: Vec::new(),
        };
        Self {
            snapshot,
            now,
            save,
        }
    }

    /// A save that only stores this write as it is afterwards.
    pub(super) fn of_write(snapshot: &'a LockSnapshot, write: Write, now: Timestamp) -> Self {
        let mut draft = Self::new(snapshot, now);
        draft.put(write);
        draft
    }

    /// Appends an event that this request led to, and returns its version.
    pub(super) fn append(
        &mut self,
        write: WriteId,
        cause: &Cause,
        event: LockEvent,
    ) -> LockVersion {
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
            cause: Some(cause.clone()),
            event,
        };
        lock.apply(&event)
            .expect("the event belongs to this lock, has its next version, and is no LockCreated");
        self.save.events.push(event);
        version
    }

    pub(super) fn add_anomalies(&mut self, write: WriteId, anomalies: &Anomalies) {
        let new_anomalies = anomalies.iter().map(|anomaly| (write, *anomaly));
        self.save.new_anomalies.extend(new_anomalies);
    }

    /// Stores the write as it is afterwards.
    pub(super) fn put(&mut self, write: Write) {
        self.save.writes.push(write);
    }

    /// Records that the shadow accepted a prepared write: first ends the writes that it supersedes and that are still open, then
    /// appends its `KeyWriteRequested`. Returns the write, now SENT, which the caller puts into the save.
    pub(super) fn request(&mut self, prepared: &Write, limits: &Limits) -> Write {
        let older = |w: &&Write| w.seq < prepared.seq && supersedes(&prepared.slot, w);
        for superseded in self.snapshot.open().filter(older) {
            self.append(
                superseded.id,
                &prepared.cause,
                LockEvent::KeyWriteSuperseded(superseded.slot.clone()),
            );
            let state = WriteState::Superseded { at: self.now };
            self.put(Write {
                state,
                next_check_at: Some(limits.final_check_at(self.now)),
                ..superseded.clone()
            });
        }
        let event = LockEvent::KeyWriteRequested(prepared.slot.clone());
        let version = self.append(prepared.id, &prepared.cause, event);
        Write {
            requested: Some(Requested {
                version,
                time: self.now,
            }),
            state: WriteState::Sent,
            next_check_at: Some(
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
