//! Contents of a device shadow, and changes of it.

use crate::model::{
    ClientToken, FailureReason, KeyIndex, KeyUuid, Sequence, ShadowVersion, ThingName, Timestamp,
    Write, WriteId,
};

/// What the lock finds on its shadow for one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowEntry {
    /// The write.
    pub id: WriteId,
    /// The key.
    pub key: KeyUuid,
    /// The slot.
    pub index: Option<KeyIndex>,
    /// Its place in the order of the lock's writes.
    pub seq: Sequence,
    /// The lock skips it from then on; on the shadow in whole seconds.
    pub expires_at: Timestamp,
}

impl From<&Write> for ShadowEntry {
    fn from(write: &Write) -> Self {
        Self {
            id: write.id,
            key: write.slot.key.clone(),
            index: write.slot.index,
            seq: write.seq,
            expires_at: write.expires_at,
        }
    }
}

/// One update of a shadow. With nothing to put, remove or clear it adds no byte and still moves the
/// version: on an expected version that is a *fence*, without one it *creates* the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowChange {
    /// The entry to add.
    pub put: Option<ShadowEntry>,
    /// Entries to take away; one that is not there is no error.
    pub remove: Vec<WriteId>,
    /// Results to take away; likewise.
    pub clear_results: Vec<WriteId>,
    /// The update is taken only while the shadow has exactly this version; `None`: always.
    pub expected: Option<ShadowVersion>,
    /// Names this request.
    pub token: ClientToken,
}

impl ShadowChange {
    /// A change that only moves the version, so that an earlier update on that version fails.
    pub fn fence(expected: ShadowVersion, token: ClientToken) -> Self {
        Self {
            expected: Some(expected),
            ..Self::create(token)
        }
    }

    /// A change that makes the shadow where it is missing.
    pub fn create(token: ClientToken) -> Self {
        Self {
            put: None,
            remove: Vec::new(),
            clear_results: Vec::new(),
            expected: None,
            token,
        }
    }
}

/// What stands on a shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowSnapshot {
    /// Its version.
    pub version: ShadowVersion,
    /// The writes that have an entry.
    pub entries: Vec<WriteId>,
    /// What the lock reported and nobody has cleared yet.
    pub results: Vec<DeviceResult>,
}

impl ShadowSnapshot {
    /// Whether the write has an entry or a result, which proves that its update was taken.
    pub fn knows(&self, id: WriteId) -> bool {
        self.entries.contains(&id) || self.results.iter().any(|r| r.write == id)
    }
}

/// What a lock says of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// It is at it.
    InProgress,
    /// The key is in its memory.
    Succeeded {
        /// The slot that it is in.
        slot: ReportedSlot,
    },
    /// It tried or refused.
    Failed(FailureReason),
    /// Something that is none of these.
    Unreadable,
}

/// The slot that a lock names for a key that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedSlot {
    /// It names none.
    Missing,
    /// This one.
    Index(KeyIndex),
    /// It names something that is no slot number.
    Unreadable,
}

/// A lock's word on one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceResult {
    /// The write.
    pub write: WriteId,
    /// What became of it.
    pub outcome: DeviceOutcome,
}

/// What one accepted update of a shadow reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The thing whose shadow it stands on.
    pub thing: ThingName,
    /// The shadow's version after it.
    pub shadow_version: Option<ShadowVersion>,
    /// The results, in no order.
    pub results: Vec<DeviceResult>,
    /// The entries that are known to stand on the shadow after the update.
    pub entries: Vec<WriteId>,
}
