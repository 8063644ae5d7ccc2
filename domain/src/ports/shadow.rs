use async_trait::async_trait;

use crate::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};

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
