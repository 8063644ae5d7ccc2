use async_trait::async_trait;

use crate::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};

/// Why an update or a read failed, by what the caller may conclude from it. The details are for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// **Not applied**: the request certainly never left the process. Connecting failed, or the request was removed from a queue
    /// before it was sent.
    #[error("not sent to the shadow ({reason}): {detail}")]
    NotApplied {
        /// The reason that clients read.
        reason: FailureReason,
        /// The cause.
        detail: String,
    },
    /// **Refused**: the shadow service answered 400, 401, 403, 404, 405, 413, 415 or 429. It did not apply this request. That
    /// proves nothing about an earlier copy of it.
    #[error("refused by the shadow ({reason}): {detail}")]
    Refused {
        /// The reason that clients read.
        reason: FailureReason,
        /// The cause.
        detail: String,
    },
    /// **Conflict**: the shadow has another version than the update expects. The update was not applied.
    #[error("the shadow has another version")]
    Conflict,
    /// **Unknown**: every other failure, such as 5xx, connection resets, timeouts and lost sessions. The update may have been
    /// applied, or may still be.
    #[error("the shadow's answer is unknown: {0}")]
    Unknown(String),
}

/// The device shadows of things. Each thing has one named shadow for its key writes, which nothing else uses.
///
/// - **Atomicity.** An update MUST be applied as a whole or not at all.
/// - **Ordering.** An update with an expected version MUST be applied only at exactly that version. An accepted update MUST
///   increment the version by one.
/// - **No repetition.** An adapter MUST NOT send an update twice. A copy of an applied update is answered with a conflict, which
///   hides the success.
/// - **Outcomes.** An adapter MUST return [`ShadowError::Unknown`] whenever the update may have been applied or may still be. It
///   MUST NOT take an answer to another client token as the answer to this request.
/// - **Unknown things.** A shadow service does not know which things and locks exist, so an update of any thing MAY succeed.
#[async_trait]
pub trait ShadowPort: Send + Sync {
    /// Applies one update and returns the shadow's new version. An update without an expected version creates a missing shadow.
    ///
    /// # Errors
    /// See [`ShadowError`].
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError>;

    /// Reads a shadow. `None`: it does not exist. Entries and results whose names are no write ids are left out. A read changes
    /// nothing, so it can be repeated, each time with another token.
    ///
    /// # Errors
    /// See [`ShadowError`]. Whichever it is, the shadow was not read.
    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError>;
}
