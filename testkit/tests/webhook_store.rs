//! The in-memory store fulfils the contract of `WebhookStore`, and for each case a broken store fails this case and no other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::webhooks::InMemoryWebhookStore;
use keywright_domain::model::*;
use keywright_domain::ports::{RepoError, WebhookStore};
use keywright_testkit::webhook_store::WebhookStoreFixture;
use keywright_testkit::{ManualTimer, webhook_store_cases};

fn fixture_with(
    wrap: impl FnOnce(InMemoryWebhookStore) -> Arc<dyn WebhookStore>,
) -> WebhookStoreFixture {
    let timer = ManualTimer::default();
    let store = wrap(InMemoryWebhookStore::new(Arc::new(timer.clone())));
    WebhookStoreFixture {
        store,
        advance: Arc::new(move |span| {
            timer.advance(span);
            Box::pin(async {})
        }),
    }
}

async fn fixture() -> WebhookStoreFixture {
    fixture_with(|store| Arc::new(store))
}

webhook_store_cases!(fixture);

/// A store that violates the contract only in what the named case checks.
struct Broken {
    case: &'static str,
    inner: InMemoryWebhookStore,
}

impl Broken {
    fn is(&self, case: &str) -> bool {
        self.case == case
    }
}

#[async_trait]
impl WebhookStore for Broken {
    async fn insert(&self, webhook: &Webhook, max: usize) -> Result<bool, RepoError> {
        let mut webhook = webhook.clone();
        if self.is("inserted_webhook_is_read_back")
            && webhook.owner == WebhookOwner::EveryOrganization
        {
            webhook.description = None;
        }
        let ignores_limit = self.is("webhooks_of_an_owner_are_limited");
        self.inner
            .insert(&webhook, if ignores_limit { usize::MAX } else { max })
            .await
    }

    async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, RepoError> {
        self.inner.get(id).await
    }

    async fn list(&self, owner: Option<&WebhookOwner>) -> Result<Vec<Webhook>, RepoError> {
        let mut list = self.inner.list(owner).await?;
        if self.is("webhooks_are_listed_by_owner") {
            list.reverse();
        }
        Ok(list)
    }

    async fn update(
        &self,
        webhook: &Webhook,
        progress: Option<WebhookProgress>,
    ) -> Result<(), RepoError> {
        let mut webhook = webhook.clone();
        let stored = self.inner.get(webhook.id).await?;
        if self.is("stale_update_changes_nothing")
            && let Some(stored) = stored
        {
            webhook.revision = stored.revision;
        }
        if self.is("update_increments_the_revision") && webhook.description.is_none() {
            let progress = WebhookProgress::default();
            return self.inner.update(&webhook, Some(progress)).await;
        }
        if self.is("update_with_progress_makes_waiting_locks_due") {
            return self.inner.update(&webhook, None).await;
        }
        self.inner.update(&webhook, progress).await
    }

    async fn remove(&self, id: WebhookId) -> Result<bool, RepoError> {
        let removed = self.inner.remove(id).await?;
        Ok(removed || self.is("removed_webhook_is_gone"))
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Vec<Webhook>, RepoError> {
        let lease = match self.is("held_webhook_is_not_claimed_by_another_worker") {
            true => lease / 2,
            false => lease,
        };
        let mut claimed = self.inner.claim(worker, lease).await?;
        if self.is("claim_takes_enabled_webhooks") && claimed.len() == 2 {
            claimed[0].description = None;
        }
        Ok(claimed)
    }

    async fn release(&self, worker: WorkerId) -> Result<(), RepoError> {
        match self.is("released_webhooks_are_claimed_at_once") {
            true => Ok(()),
            false => self.inner.release(worker).await,
        }
    }

    async fn waiting(&self, id: WebhookId) -> Result<Vec<WaitingLock>, RepoError> {
        self.inner.waiting(id).await
    }

    async fn save_progress(&self, mut save: ProgressSave) -> Result<(), RepoError> {
        let stored = self.inner.get(save.webhook).await?;
        if self.is("save_at_another_revision_is_stale")
            && let Some(stored) = stored
        {
            save.revision = stored.revision;
        }
        if self.is("save_of_another_worker_is_stale") {
            let held = self.inner.claim(WorkerId(2), Duration::ZERO).await?;
            if !held.is_empty() {
                save.worker = WorkerId(2);
            }
        }
        if self.is("save_disables_a_webhook") && save.put.is_empty() {
            save.disable = None;
        }
        if self.is("progress_is_read_back") {
            for record in &mut save.records {
                if let Ok(answer) = &mut record.answer {
                    answer.body = answer.body.replace('\0', "");
                }
            }
        }
        let is_large = save.records.len() > 200;
        if self.is("records_are_bounded") && is_large {
            save.records.truncate(200);
        }
        self.inner.save_progress(save).await
    }

    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError> {
        let before = match self.is("records_are_listed_newest_first") {
            true => before.map(|before| before + 1),
            false => before,
        };
        self.inner.records(id, outcome, before, limit).await
    }
}

#[tokio::test]
async fn each_broken_store_fails_its_own_case_and_no_other() {
    let mut wrong = Vec::new();
    for broken in WEBHOOK_STORE_CASES {
        for case in WEBHOOK_STORE_CASES {
            let outcome = tokio::spawn(async move {
                let fixture = fixture_with(|inner| {
                    Arc::new(Broken {
                        case: broken,
                        inner,
                    })
                });
                run_webhook_store_case(case, &fixture).await;
            });
            if outcome.await.is_err() != (broken == case) {
                wrong.push(format!("store broken for {broken}, case {case}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
