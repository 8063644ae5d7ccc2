use std::time::Duration;

use async_trait::async_trait;

use super::lock_repo::RepoError;
use crate::model::{
    DeliveryOutcome, DeliveryRecord, EndpointAnswer, NoAnswer, ProgressSave, Timestamp,
    WaitingLock, Webhook, WebhookId, WebhookMessage, WebhookOwner, WebhookProgress, WebhookUrl,
    WorkerId,
};
use crate::policy::UnusableUrl;

/// Stores webhooks with their progress, and the records of their recent deliveries.
///
/// A change is applied as a whole or not at all. An adapter that stores secrets beyond the process encrypts them.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `inserted_webhook_is_read_back`: a webhook MUST be read back with all its members.
/// 2. `webhooks_of_an_owner_are_limited`: an insert MUST change nothing if the owner has as many webhooks as it may have.
/// 3. `webhooks_are_listed_by_owner`: a list MUST have the webhooks of its owner in the order of their ids.
/// 4. `update_increments_the_revision`: an update MUST store the members of the webhook besides its progress, and the next revision.
/// 5. `stale_update_changes_nothing`: an update that names another revision than the webhook has MUST be stale and change nothing.
/// 6. `update_with_progress_makes_waiting_locks_due`: an update with a progress MUST store it and make all waiting locks due.
/// 7. `removed_webhook_is_gone`: a removed webhook MUST NOT be found, nor anything that belongs to it.
/// 8. `claim_takes_enabled_webhooks`: a claim MUST return all enabled webhooks that no other worker holds.
/// 9. `held_webhook_is_not_claimed_by_another_worker`: a claim MUST NOT return a webhook before the lease of another worker has ended.
/// 10. `released_webhooks_are_claimed_at_once`: a claim MUST return the webhooks that their worker has released.
/// 11. `progress_is_read_back`: a save MUST store the progress, the waiting locks and the records, whatever an answer contains.
/// 12. `save_of_another_worker_is_stale`: a save of a worker that does not hold the webhook MUST be stale and change nothing.
/// 13. `save_at_another_revision_is_stale`: a save that names another revision MUST be stale and change nothing.
/// 14. `save_disables_a_webhook`: a save with a reason MUST disable the webhook and increment its revision.
/// 15. `records_are_listed_newest_first`: a list of records MUST begin below the given number, be in descending order, and end at the
///     limit.
/// 16. `records_are_bounded`: of each webhook the store MUST keep the newest [`DeliveryRecord::KEPT`] records of deliveries that succeeded,
///     and as many of others.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Stores a new webhook, unless its owner has `max` of them. Returns whether it is stored.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn insert(&self, webhook: &Webhook, max: usize) -> Result<bool, RepoError>;

    /// Reads one webhook. `None`: it does not exist.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError>;

    /// Reads the webhooks of an owner, or all of them. Those that cannot be read are left out and reported, unless there are no others.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn list(&self, owner: Option<&WebhookOwner>) -> Result<Vec<Webhook>, RepoError>;

    /// Replaces a webhook, if it still has the revision of `webhook`. Its own progress is kept, unless there is a new one.
    ///
    /// # Errors
    /// [`RepoError::Stale`], [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn update(
        &self,
        webhook: &Webhook,
        progress: Option<WebhookProgress>,
    ) -> Result<(), RepoError>;

    /// Removes a webhook with everything that belongs to it. Returns whether it existed.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn remove(&self, id: WebhookId) -> Result<bool, RepoError>;

    /// Gives all enabled webhooks that no other worker holds to `worker`, for `lease` from now, and returns them. A worker calls it again
    /// before its leases end. A webhook that cannot be read is left out, as in a list.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`], [`RepoError::Corrupt`].
    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Vec<Webhook>, RepoError>;

    /// Ends all leases of the worker.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn release(&self, worker: WorkerId) -> Result<(), RepoError>;

    /// Reads the waiting locks of a webhook.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn waiting(&self, id: WebhookId) -> Result<Vec<WaitingLock>, RepoError>;

    /// Saves the progress of deliveries.
    ///
    /// # Errors
    /// [`RepoError::Stale`]: the webhook has another revision, or another worker, or does not exist. [`RepoError::Unavailable`],
    /// [`RepoError::Unknown`].
    async fn save_progress(&self, save: ProgressSave) -> Result<(), RepoError>;

    /// Reads at most `limit` records of deliveries of a webhook, in descending order of their numbers, with this outcome and below
    /// `before`.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError>;
}

/// Sends deliveries to endpoints. It applies the rules about addresses that it was made with, and decides nothing else.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// Checks that a URL may be used, and that all addresses of its host may.
    ///
    /// # Errors
    /// See [`UnusableUrl`].
    async fn check(&self, url: &WebhookUrl) -> Result<(), UnusableUrl>;

    /// Signs a message with the secrets that are valid at `now`, sends it once, and returns the answer. It connects only to addresses that
    /// may be used, and follows no redirects. The time for all of it is `timeout`.
    ///
    /// # Errors
    /// See [`NoAnswer`]. The endpoint may have received the message.
    async fn send(
        &self,
        webhook: &Webhook,
        message: &WebhookMessage,
        now: Timestamp,
        timeout: Duration,
    ) -> Result<EndpointAnswer, NoAnswer>;
}
