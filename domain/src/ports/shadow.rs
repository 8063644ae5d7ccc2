use async_trait::async_trait;

use super::reports::DeviceResult;
use crate::reason::FailureReason;
use crate::values::{
    ClientToken, KeyIndex, KeyUuid, Sequence, ShadowVersion, ThingName, Timestamp, WriteId,
};
use crate::write::Write;

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

/// Why an update or a read has no good answer: what a caller may conclude from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// **Not applied**: the request certainly never left (connecting failed, or it was dropped from a
    /// queue before it was sent).
    #[error("not sent to the shadow ({reason}): {detail}")]
    NotApplied {
        /// The reason that clients read.
        reason: FailureReason,
        /// For the log.
        detail: String,
    },
    /// **Refused**: the shadow answered 400, 401, 403, 404, 405, 413, 415 or 429. It did not take this
    /// request; that says nothing of an earlier one.
    #[error("refused by the shadow ({reason}): {detail}")]
    Refused {
        /// The reason that clients read.
        reason: FailureReason,
        /// For the log.
        detail: String,
    },
    /// **Conflict**: the shadow does not have the expected version.
    #[error("the shadow has another version")]
    Conflict,
    /// **Unknown**: everything else, all 5xx, resets, deadlines and lost sessions among them. The
    /// update may have been applied, or may still be.
    #[error("the shadow's answer is unknown: {0}")]
    Unknown(String),
}

/// The device shadows of things: the named shadow with the key writes, nothing else.
///
/// - An update MUST be all or nothing and MUST be conditional on `expected` where that is given.
/// - An adapter MUST NOT repeat an update on its own: a repeat of an applied update comes back as
///   a conflict and hides the success.
/// - An adapter MUST answer [`ShadowError::Unknown`] whenever it cannot exclude that the update was
///   or will be applied, and MUST NOT take the answer to another token for its own.
/// - A shadow does not know whether a thing or a lock exists: an update of any thing succeeds.
#[async_trait]
pub trait ShadowPort: Send + Sync {
    /// Changes a shadow and answers its new version.
    ///
    /// # Errors
    /// See [`ShadowError`].
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError>;

    /// Reads a shadow; `None` where it does not exist. Entries and results under other names than write ids are left out.
    ///
    /// # Errors
    /// See [`ShadowError`]; a read changes nothing, so each of them means only: not read.
    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError>;
}
