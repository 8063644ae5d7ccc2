//! What a service needs to deliver events to webhooks. It acts for no principal: the access of each webhook's owner decides.

use std::time::Duration;

use super::webhooks::Webhooks;
use crate::model::{
    EndpointAnswer, Lock, LockId, LockSnapshot, LockVersion, NoAnswer, Position, ProgressSave,
    RecordedEvent, Timestamp, Webhook, WebhookEvent, WebhookId, WebhookMessage, WorkerId,
};
use crate::policy::{DeliveryQueue, NextDelivery};
use crate::ports::RepoError;

/// How many events of a waiting lock are read at once.
const READ_AT_ONCE: usize = 100;

impl Webhooks {
    /// The id of this process as a worker.
    pub fn worker(&self) -> WorkerId {
        self.writes.worker
    }

    /// The webhooks whose events this process delivers for `lease` from now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn claim(&self, lease: Duration) -> Result<Vec<Webhook>, RepoError> {
        self.store.claim(self.worker(), lease).await
    }

    /// Lets other processes deliver the events of all webhooks of this one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn release(&self) -> Result<(), RepoError> {
        self.store.release(self.worker()).await
    }

    /// All webhooks, for metrics.
    ///
    /// # Errors
    /// The store failed.
    pub async fn all(&self) -> Result<Vec<Webhook>, RepoError> {
        self.store.list(None).await
    }

    /// A webhook as it is stored now. `None`: it was removed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn stored(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError> {
        self.store.get(id).await
    }

    /// The deliveries of a webhook, as they are stored. A cursor behind the end of the feed is set to that end: the store of locks is then
    /// older than that of webhooks, because only one of them was restored, and its next events take the positions again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn queue(&self, webhook: &Webhook) -> Result<DeliveryQueue, RepoError> {
        let waiting = self.store.waiting(webhook.id).await?;
        let limits = self.limits.clone();
        let progress = webhook.progress.within(self.writes.feed_end().await?);
        Ok(DeliveryQueue::new(limits, progress, waiting, self.now()))
    }

    /// Adds an event of the feed to the queue, if the webhook wants it and its owner may access the lock.
    pub fn offer(
        &self,
        webhook: &Webhook,
        queue: &mut DeliveryQueue,
        (position, event): (Position, &RecordedEvent),
        lock: &Lock,
    ) {
        match self.wants(webhook, event, lock) {
            false => queue.pass(position),
            true => queue.add(position, webhook_event(event, lock)),
        }
    }

    fn wants(&self, webhook: &Webhook, event: &RecordedEvent, lock: &Lock) -> bool {
        let access = &self.writes.access;
        webhook.events.has(event.event.name())
            && access.may_access(&webhook.owner.principal(), lock)
    }

    /// The event of a delivery: the one that was read, or of a waiting lock the next one that the webhook wants. `None`: it wants none, or
    /// its owner has lost the lock since the event was read.
    ///
    /// # Errors
    /// The store failed.
    pub async fn event(
        &self,
        webhook: &Webhook,
        next: &NextDelivery,
    ) -> Result<Option<WebhookEvent>, RepoError> {
        match &next.event {
            Some(event) => {
                let snapshot = self.lock(next.lock).await?;
                let is_wanted = snapshot
                    .is_some_and(|snapshot| self.wants(webhook, &event.recorded, &snapshot.lock));
                Ok(is_wanted.then(|| (**event).clone()))
            }
            None => {
                self.next_event(webhook, next.lock, next.version, next.through)
                    .await
            }
        }
    }

    async fn lock(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        match self.writes.ports.locks.load(lock).await {
            // As in the feed: nobody's access to the lock can be decided.
            Err(RepoError::Corrupt { .. }) => Ok(None),
            loaded => loaded,
        }
    }

    async fn next_event(
        &self,
        webhook: &Webhook,
        lock: LockId,
        first: LockVersion,
        through: LockVersion,
    ) -> Result<Option<WebhookEvent>, RepoError> {
        let Some(snapshot) = self.lock(lock).await? else {
            return Ok(None);
        };
        let mut first = first;
        while first <= through {
            let history = &self.writes.ports.history;
            let events = history.events(lock, first, READ_AT_ONCE).await?;
            let Some(last) = events.last().map(|event| event.version) else {
                return Ok(None);
            };
            let mut wanted = events
                .into_iter()
                .filter(|event| event.version <= through)
                .filter(|event| self.wants(webhook, event, &snapshot.lock));
            if let Some(recorded) = wanted.next() {
                return Ok(Some(webhook_event(&recorded, &snapshot.lock)));
            }
            first = last.next();
        }
        Ok(None)
    }

    /// Sends an event once.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        webhook: &Webhook,
        message: &WebhookMessage,
        now: Timestamp,
    ) -> Result<EndpointAnswer, NoAnswer> {
        let timeout = self.limits.timeout;
        self.sender.send(webhook, message, now, timeout).await
    }

    /// Saves the progress of deliveries.
    ///
    /// # Errors
    /// [`RepoError::Stale`]: the webhook has changed, or belongs to another process. The store failed.
    pub async fn save_progress(&self, save: ProgressSave) -> Result<(), RepoError> {
        self.store.save_progress(save).await
    }

    /// The time by the wall clock, by which attempts are due.
    pub fn time(&self) -> Timestamp {
        self.now()
    }

    /// Random bits, which spread the attempts of many webhooks.
    pub fn random(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits of an id are its random ones"
        )]
        let random = self.writes.ports.ids.next_id() as u32;
        random
    }

    /// How far a webhook is behind the feed: the number of positions, and the age of the first event behind the cursor.
    ///
    /// # Errors
    /// The store failed.
    pub async fn lag(&self, webhook: &Webhook) -> Result<(u64, Duration), RepoError> {
        let cursor = webhook.progress.cursor;
        let end = self.writes.feed_end().await?;
        if end <= cursor {
            return Ok((0, Duration::ZERO));
        }
        let next = self.writes.events_after(cursor, 1).await?;
        let age = next.first().map(|next| self.now().since(next.event.time));
        Ok((end.0 - cursor.0, age.unwrap_or_default()))
    }
}

fn webhook_event(event: &RecordedEvent, lock: &Lock) -> WebhookEvent {
    WebhookEvent {
        recorded: event.clone(),
        organization: lock.organization.clone(),
    }
}
