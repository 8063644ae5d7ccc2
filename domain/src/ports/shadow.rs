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
/// A shadow service does not know which things and locks exist, so an update of any thing may succeed.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`. The cases from 15 on need a transport with faults.
///
/// 1. `missing_shadow_reads_as_none`: a shadow that was never updated MUST be read as `None`.
/// 2. `create_makes_an_empty_shadow`: an update without an expected version MUST create a missing shadow.
/// 3. `put_entries_are_read_back`: a read MUST find the ids of all entries, at the version that the last update returned.
/// 4. `entry_has_the_members_of_the_device_contract`: an entry MUST have exactly the members that locks read: `keyUuid`, `seq`,
///    `expiresAt` in whole seconds and, if there is a slot, `keyIndexNumber`.
/// 5. `other_version_is_a_conflict`: an update that expects another version MUST be a conflict and change nothing.
/// 6. `exactly_one_of_concurrent_updates_is_applied`: of concurrent updates that expect one version, exactly one MUST be applied.
/// 7. `fence_changes_only_the_version`: an accepted update MUST increment the version by one, also one that changes nothing else.
/// 8. `remove_takes_only_the_named_entries`: an update MUST remove the named entries and keep the others.
/// 9. `results_are_read_with_all_members`: a read MUST find the results that the lock has reported, with reasons and slots.
/// 10. `unreadable_results_do_not_fail_the_read`: a result of unknown format MUST be read as unreadable beside the others.
/// 11. `put_clears_the_named_results`: all parts of an update MUST be applied together, or none.
/// 12. `clear_takes_only_the_named_results`: an update MUST clear the named results and keep the others.
/// 13. `shadows_of_things_are_independent`: an update MUST NOT change the shadow of another thing.
/// 14. `too_large_update_is_refused`: an update that the service rejects as too large MUST be refused for this reason.
/// 15. `lost_answer_is_unknown`: an update whose answer is lost MUST be [`ShadowError::Unknown`].
/// 16. `lost_update_is_not_sent_again`: an adapter MUST NOT send an update twice: a copy of an applied update is answered by a
///     conflict, which hides the success.
/// 17. `server_error_is_unknown`: an update that is answered by a 5xx MUST be [`ShadowError::Unknown`].
/// 18. `torn_answer_is_unknown`: an update whose answer ends in the middle MUST be [`ShadowError::Unknown`].
/// 19. `broken_connection_is_unknown_and_reestablished`: an adapter MUST open a new connection by itself when one breaks.
/// 20. `late_answer_is_not_taken_for_another_request`: a late answer MUST NOT be taken for the answer to a later request.
/// 21. `reordered_answers_reach_their_requests`: an answer MUST NOT be taken for the answer to a request with another token.
/// 22. `throttled_update_is_refused`: a throttled update MUST be refused for this reason.
/// 23. `forbidden_update_is_refused`: an update that is answered by a 401 or 403 MUST be refused as not authorized.
/// 24. `update_without_a_connection_is_no_refusal`: an adapter MUST NOT return a conflict or a refusal that no service has sent.
/// 25. `failed_read_is_an_error`: a read that fails MUST be an error, not `None`.
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
