//! The row of a lock, and the import of events into it.

use keywright_domain::model::{
    Lock, LockSnapshot, LockVersion, RecordedEvent, Revision, ShadowVersion, Write,
};
use keywright_domain::ports::ImportError;

/// The version of an imported event that takes the next version of its lock.
pub const NEXT_VERSION: LockVersion = LockVersion(0);

/// Applies an imported event to its lock, or creates the lock. Sets the event's version if it is [`NEXT_VERSION`].
///
/// # Errors
/// [`ImportError::NotAStream`].
pub fn apply_imported(known: Option<Lock>, event: &mut RecordedEvent) -> Result<Lock, ImportError> {
    if event.version == NEXT_VERSION {
        let first = LockVersion(1);
        event.version = known.as_ref().map_or(first, |lock| lock.version.next());
    }
    let applied = match known {
        Some(mut lock) => lock.apply(event).map(|()| lock),
        None => Lock::create(event),
    };
    applied.map_err(|why| ImportError::NotAStream {
        lock: event.lock,
        at: event.version,
        why,
    })
}

/// What a store has of a lock besides its events and writes.
#[derive(Clone)]
pub(super) struct LockRow {
    pub(super) lock: Lock,
    pub(super) revision: Revision,
    pub(super) shadow_version: Option<ShadowVersion>,
}

impl LockRow {
    /// Applies an imported event to the row of its lock, as [`apply_imported`] does.
    pub(super) fn import(
        known: Option<Self>,
        event: &mut RecordedEvent,
    ) -> Result<Self, ImportError> {
        let (lock, revision, shadow_version) = match known {
            Some(row) => (Some(row.lock), row.revision, row.shadow_version),
            None => (None, Revision(0), None),
        };
        Ok(Self {
            lock: apply_imported(lock, event)?,
            revision,
            shadow_version,
        })
    }

    /// The snapshot of the lock with its live writes.
    pub(super) fn into_snapshot(self, writes: Vec<Write>) -> LockSnapshot {
        LockSnapshot::new(self.lock, self.revision, self.shadow_version, writes)
    }
}
