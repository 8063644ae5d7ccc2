//! Webhooks in memory. They are lost when the process ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, LockId, ProgressSave, Timestamp, WaitingLock, Webhook,
    WebhookId, WebhookOwner, WebhookProgress, WebhookState, WorkerId,
};
use keywright_domain::ports::{RepoError, Timer, WebhookStore};

use super::process_leases::ProcessLeases;

/// Stores webhooks. Clones share the store.
#[derive(Clone)]
pub struct InMemoryWebhookStore {
    stored: Arc<Mutex<Stored>>,
    leases: ProcessLeases,
}

#[derive(Default)]
struct Stored {
    webhooks: BTreeMap<WebhookId, StoredWebhook>,
    last_number: u64,
}

struct StoredWebhook {
    webhook: Webhook,
    waiting: BTreeMap<LockId, WaitingLock>,
    records: Vec<DeliveryRecord>,
}

impl InMemoryWebhookStore {
    /// An empty store, whose leases are measured with `timer`.
    pub fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            stored: Arc::default(),
            leases: ProcessLeases::new(timer),
        }
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl WebhookStore for InMemoryWebhookStore {
    async fn insert(&self, webhook: &Webhook, max: usize) -> Result<bool, RepoError> {
        let webhooks = &mut self.stored().webhooks;
        let is_of_owner = |stored: &&StoredWebhook| stored.webhook.owner == webhook.owner;
        if webhooks.values().filter(is_of_owner).count() >= max {
            return Ok(false);
        }
        let stored = StoredWebhook {
            webhook: webhook.clone(),
            waiting: BTreeMap::new(),
            records: Vec::new(),
        };
        webhooks.insert(webhook.id, stored);
        Ok(true)
    }

    async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError> {
        let stored = self.stored();
        Ok(stored
            .webhooks
            .get(&id)
            .map(|stored| stored.webhook.clone()))
    }

    async fn list(&self, owner: Option<&WebhookOwner>) -> Result<Vec<Webhook>, RepoError> {
        let stored = self.stored();
        let all = stored.webhooks.values().map(|stored| &stored.webhook);
        let of_owner = all.filter(|webhook| owner.is_none_or(|owner| webhook.owner == *owner));
        Ok(of_owner.cloned().collect())
    }

    async fn update(
        &self,
        webhook: &Webhook,
        progress: Option<WebhookProgress>,
    ) -> Result<(), RepoError> {
        let mut all = self.stored();
        let stored = all.webhooks.get_mut(&webhook.id).ok_or(RepoError::Stale)?;
        if stored.webhook.revision != webhook.revision {
            return Err(RepoError::Stale);
        }
        if progress.is_some() {
            for waiting in stored.waiting.values_mut() {
                waiting.due = Timestamp::from_millis(0);
            }
        }
        stored.webhook = Webhook {
            revision: webhook.revision.next(),
            progress: progress.unwrap_or(stored.webhook.progress),
            ..webhook.clone()
        };
        Ok(())
    }

    async fn remove(&self, id: WebhookId) -> Result<bool, RepoError> {
        Ok(self.stored().webhooks.remove(&id).is_some())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Vec<Webhook>, RepoError> {
        let stored = self.stored();
        let webhooks = stored.webhooks.values().map(|stored| &stored.webhook);
        let claimed = webhooks
            .filter(|webhook| webhook.is_enabled() && self.leases.claim(webhook.id, worker, lease));
        Ok(claimed.cloned().collect())
    }

    async fn release(&self, worker: WorkerId) -> Result<(), RepoError> {
        self.leases.release(worker);
        Ok(())
    }

    async fn waiting(&self, id: WebhookId) -> Result<Vec<WaitingLock>, RepoError> {
        let stored = self.stored();
        let webhook = stored.webhooks.get(&id);
        let waiting = webhook.map(|webhook| webhook.waiting.values().copied().collect());
        Ok(waiting.unwrap_or_default())
    }

    async fn save_progress(&self, save: ProgressSave) -> Result<(), RepoError> {
        let mut all = self.stored();
        let Stored {
            webhooks,
            last_number,
        } = &mut *all;
        let stored = webhooks.get_mut(&save.webhook).ok_or(RepoError::Stale)?;
        let is_held = self.leases.holds(save.webhook, save.worker);
        if !is_held || stored.webhook.revision != save.revision {
            return Err(RepoError::Stale);
        }
        stored.webhook.progress = save.progress;
        for waiting in save.put {
            stored.waiting.insert(waiting.lock, waiting);
        }
        for lock in save.remove {
            stored.waiting.remove(&lock);
        }
        for record in save.records {
            *last_number += 1;
            stored.records.push(DeliveryRecord {
                number: *last_number,
                ..record
            });
        }
        drop_old(&mut stored.records);
        if let Some((reason, at)) = save.disable {
            stored.webhook.state = WebhookState::Disabled { at, reason };
            stored.webhook.revision = save.revision.next();
        }
        Ok(())
    }

    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError> {
        let stored = self.stored();
        let records = stored.webhooks.get(&id).map(|stored| &stored.records);
        let newest_first = records.into_iter().flatten().rev();
        let found = newest_first
            .filter(|record| outcome.is_none_or(|outcome| record.outcome == outcome))
            .filter(|record| before.is_none_or(|before| record.number < before));
        Ok(found.take(limit).cloned().collect())
    }
}

/// Drops the oldest records that are not kept.
fn drop_old(records: &mut Vec<DeliveryRecord>) {
    let mut newer = [0, 0];
    let mut is_kept: Vec<bool> = records
        .iter()
        .rev()
        .map(|record| {
            let newer = &mut newer[usize::from(record.outcome == DeliveryOutcome::Delivered)];
            *newer += 1;
            *newer <= DeliveryRecord::KEPT
        })
        .collect();
    records.retain(|_| is_kept.pop().unwrap_or(false));
}
