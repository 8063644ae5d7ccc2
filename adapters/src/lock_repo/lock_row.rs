//! The row of a lock, and the import of events into it.

use keywright_domain::model::{
    Lock, LockSnapshot, LockVersion, RecordedEvent, Revision, ShadowVersion, Write,
};
use keywright_domain::ports::ImportError;

/// The version of an imported event that takes the next version of its lock.
pub const NEXT_VERSION: LockVersion = LockVersion(0);

/// What a store has of a lock besides its events and writes.
#[derive(Clone)]
pub(super) struct LockRow {
    pub(super) lock: Lock,
    pub(super) revision: Revision,
    pub(super) shadow_version: Option<ShadowVersion>,
}

impl LockRow {
    /// Applies an imported event to the row of its lock, if there is one. Sets the event's version if it is [`NEXT_VERSION`].
    pub(super) fn import(
        known: Option<Self>,
        event: &mut RecordedEvent,
    ) -> Result<Self, ImportError> {
        if event.version == NEXT_VERSION {
            let first = LockVersion(1);
            event.version = known.as_ref().map_or(first, |row| row.lock.version.next());
        }
        let refused = |why| ImportError::NotAStream {
            lock: event.lock,
            at: event.version,
            why,
        };
        match known {
            Some(mut row) => {
                row.lock.apply(event).map_err(refused)?;
                Ok(row)
            }
            None => Ok(Self {
                lock: Lock::create(event).map_err(refused)?,
                revision: Revision(0),
                shadow_version: None,
            }),
        }
    }

    /// The snapshot of the lock with its live writes.
    pub(super) fn into_snapshot(self, writes: Vec<Write>) -> LockSnapshot {
        LockSnapshot::new(self.lock, self.revision, self.shadow_version, writes)
    }
}
