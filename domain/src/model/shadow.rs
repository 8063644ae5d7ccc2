//! Contents of a device shadow, changes of it, and reports of locks.

use crate::model::{
    ClientToken, FailureReason, KeyIndex, KeyUuid, Sequence, ShadowVersion, ThingName, Timestamp,
    Write, WriteId,
};

/// The entry of one write on the shadow, in `desired.writeKey`. It tells the lock to execute the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowEntry {
    /// The write.
    pub id: WriteId,
    /// The key.
    pub key: KeyUuid,
    /// The slot. `None`: the lock chooses one.
    pub index: Option<KeyIndex>,
    /// The lock executes its entries in ascending order of this number.
    pub seq: Sequence,
    /// From this time on the lock skips the entry. On the shadow it is in whole seconds, rounded down.
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

/// One update of a shadow. It is applied as a whole or not at all, and increments the shadow's version.
///
/// An update without anything to put, remove or clear changes only the version. With an expected version it is a *fence*, which
/// makes earlier updates at that version fail; without one it *creates* the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowChange {
    /// The entry to add.
    pub put: Option<ShadowEntry>,
    /// Writes whose entries are removed. A missing entry is no error.
    pub remove: Vec<WriteId>,
    /// Writes whose results are removed. A missing result is no error.
    pub clear_results: Vec<WriteId>,
    /// The update is applied only while the shadow has exactly this version. `None`: at any version.
    pub expected: Option<ShadowVersion>,
    /// Identifies this request; no other request has the same token.
    pub token: ClientToken,
}

impl ShadowChange {
    /// A change that only increments the version, so that any other update at version `expected` fails.
    pub fn fence(expected: ShadowVersion, token: ClientToken) -> Self {
        Self {
            expected: Some(expected),
            ..Self::create(token)
        }
    }

    /// A change that creates the shadow if it does not exist.
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

/// The contents of a shadow at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowSnapshot {
    /// The shadow's version.
    pub version: ShadowVersion,
    /// The writes that have an entry.
    pub entries: Vec<WriteId>,
    /// The results on the shadow. They stay there until an update clears them.
    pub results: Vec<DeviceResult>,
}

impl ShadowSnapshot {
    /// Whether the write has an entry or a result, which proves that the shadow has accepted it.
    pub fn has_write(&self, id: WriteId) -> bool {
        self.entries.contains(&id) || self.results.iter().any(|r| r.write == id)
    }
}

/// The state of a write that its lock reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// The lock is executing the write.
    InProgress,
    /// The lock holds the key.
    Succeeded {
        /// The slot of the key.
        slot: ReportedSlot,
    },
    /// The lock could not or would not store the key.
    Failed(FailureReason),
    /// The result has no known format.
    Unreadable,
}

/// The slot in a lock's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedSlot {
    /// The result names no slot.
    Missing,
    /// The result names this slot.
    Index(KeyIndex),
    /// The result names something that is not a key index.
    Unreadable,
}

/// A lock's result for one write, in `reported.writeKeyResult`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceResult {
    /// The write.
    pub write: WriteId,
    /// The outcome.
    pub outcome: DeviceOutcome,
}

/// The results in one accepted update of a shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The thing whose shadow was updated.
    pub thing: ThingName,
    /// The shadow's version after the update, if it is known.
    pub shadow_version: Option<ShadowVersion>,
    /// The results, in any order.
    pub results: Vec<DeviceResult>,
    /// Writes whose entries are known to be on the shadow after the update. Others may be there, too.
    pub entries: Vec<WriteId>,
}
