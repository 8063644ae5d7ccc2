//! Webhooks on behalf of their owners: registration, changes, tests, replays, and the records of deliveries.

use std::sync::Arc;
use std::time::Duration;

use super::key_writes::KeyWrites;
use crate::model::{
    DeliveryOutcome, DeliveryRecord, DisabledReason, EndpointAnswer, EventId, EventSelection,
    NoAnswer, Position, Principal, Revision, SigningSecret, SigningSecrets, Timestamp, WaitingLock,
    Webhook, WebhookDescription, WebhookEvent, WebhookId, WebhookMessage, WebhookOwner,
    WebhookProgress, WebhookState, WebhookTest, WebhookUrl,
};
use crate::policy::{self, UnusableUrl, WebhookLimits};
use crate::ports::{RepoError, WebhookSender, WebhookStore};

/// How many times a change is decided again after another one.
const MAX_TRIES: usize = 5;

/// The webhooks of a store of locks. Create one per process and share it by reference.
pub struct Webhooks {
    pub(super) writes: Arc<KeyWrites>,
    pub(super) store: Arc<dyn WebhookStore>,
    pub(super) sender: Arc<dyn WebhookSender>,
    pub(super) limits: WebhookLimits,
}

/// A webhook to register.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Where events are delivered.
    pub url: WebhookUrl,
    /// Which events.
    pub events: EventSelection,
    /// What it is for.
    pub description: Option<WebhookDescription>,
    /// The secret that signs deliveries. The caller generates it and shows it once.
    pub secret: SigningSecret,
}

/// What to change of a webhook. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookChange {
    /// Another URL.
    pub url: Option<WebhookUrl>,
    /// Other events.
    pub events: Option<EventSelection>,
    /// Another description, or none.
    pub description: Option<Option<WebhookDescription>>,
    /// Whether it is enabled. Enabling continues at the cursor.
    pub enabled: Option<bool>,
}

/// From where events are delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// Behind this position.
    After(Position),
    /// Those that were recorded then or later.
    Since(Timestamp),
}

/// A delivery that the owner of a webhook asked for, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestDelivery {
    /// What was delivered.
    pub message: WebhookMessage,
    /// What came of it. It is not tried again.
    pub outcome: DeliveryOutcome,
    /// What the endpoint answered, or why it did not.
    pub answer: Result<EndpointAnswer, NoAnswer>,
}

/// Why a webhook was not read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The principal is no organization.
    #[error("webhooks belong to organizations")]
    NoOrganization,
    /// The webhook belongs to another owner.
    #[error("the webhook belongs to another organization")]
    Forbidden,
    /// There is no such webhook.
    #[error("there is no such webhook")]
    NotFound,
    /// There is no such event, or the owner may not access its lock.
    #[error("there is no such event")]
    EventNotFound,
    /// No event has this position.
    #[error("no event has this cursor")]
    UnknownPosition,
    /// The owner has as many webhooks as it may have.
    #[error("there are {0} webhooks already")]
    TooMany(usize),
    /// The secret was replaced a short time ago, and the one before signs until then.
    #[error("the secret before signs until {0}")]
    RotatedRecently(Timestamp),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UnusableUrl),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
}

impl Webhooks {
    /// Webhooks that deliver the events of `writes`.
    pub fn new(
        writes: Arc<KeyWrites>,
        store: Arc<dyn WebhookStore>,
        sender: Arc<dyn WebhookSender>,
        limits: WebhookLimits,
    ) -> Self {
        Self {
            writes,
            store,
            sender,
            limits,
        }
    }

    /// The limits in force.
    pub const fn limits(&self) -> &WebhookLimits {
        &self.limits
    }

    pub(super) fn now(&self) -> Timestamp {
        self.writes.ports.clock.now()
    }

    /// Registers a webhook. It receives the events that are recorded from now on.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn register(
        &self,
        principal: &Principal,
        new: NewWebhook,
    ) -> Result<Webhook, WebhookError> {
        let owner = policy::owner_of(principal).ok_or(WebhookError::NoOrganization)?;
        self.sender.check(&new.url).await?;
        let webhook = Webhook {
            id: WebhookId::from_u128(self.writes.ports.ids.next_id()),
            owner,
            url: new.url,
            events: new.events,
            description: new.description,
            secrets: SigningSecrets::of(new.secret),
            created_at: self.now(),
            state: WebhookState::Enabled,
            revision: Revision(1),
            progress: WebhookProgress {
                cursor: self.writes.feed_end().await?,
                ..WebhookProgress::default()
            },
        };
        let max = self.limits.max_webhooks;
        match self.store.insert(&webhook, max).await? {
            true => Ok(webhook),
            false => Err(WebhookError::TooMany(max)),
        }
    }

    /// The webhooks that the principal may read, in the order of their ids.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn list(&self, principal: &Principal) -> Result<Vec<Webhook>, WebhookError> {
        // Whoever may read those of every organization may read all.
        if policy::may_read(principal, &WebhookOwner::EveryOrganization) {
            return Ok(self.store.list(None).await?);
        }
        let owner = policy::owner_of(principal).ok_or(WebhookError::NoOrganization)?;
        Ok(self.store.list(Some(&owner)).await?)
    }

    /// One webhook.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn read(
        &self,
        principal: &Principal,
        id: WebhookId,
    ) -> Result<Webhook, WebhookError> {
        if policy::owner_of(principal).is_none()
            && !policy::may_read(principal, &WebhookOwner::EveryOrganization)
        {
            return Err(WebhookError::NoOrganization);
        }
        let webhook = self.store.get(id).await?.ok_or(WebhookError::NotFound)?;
        match policy::may_read(principal, &webhook.owner) {
            true => Ok(webhook),
            false => Err(WebhookError::Forbidden),
        }
    }

    /// A webhook that the principal may change.
    async fn managed(&self, principal: &Principal, id: WebhookId) -> Result<Webhook, WebhookError> {
        if policy::owner_of(principal).is_none() {
            return Err(WebhookError::NoOrganization);
        }
        let webhook = self.store.get(id).await?.ok_or(WebhookError::NotFound)?;
        match policy::may_manage(principal, &webhook.owner) {
            true => Ok(webhook),
            false => Err(WebhookError::Forbidden),
        }
    }

    /// Changes a webhook, and returns it as it is then.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn change(
        &self,
        principal: &Principal,
        id: WebhookId,
        change: &WebhookChange,
    ) -> Result<Webhook, WebhookError> {
        self.managed(principal, id).await?;
        if let Some(url) = &change.url {
            self.sender.check(url).await?;
        }
        let now = self.now();
        self.update(principal, id, |webhook| {
            if let Some(url) = &change.url {
                webhook.url = url.clone();
            }
            if let Some(events) = &change.events {
                webhook.events = events.clone();
            }
            if let Some(description) = &change.description {
                webhook.description.clone_from(description);
            }
            let (at, reason) = (now, DisabledReason::Requested);
            match (change.enabled, webhook.is_enabled()) {
                (Some(true), false) => {
                    webhook.state = WebhookState::Enabled;
                    return Some(WebhookProgress {
                        failures: None,
                        ..webhook.progress.restarted()
                    });
                }
                (Some(false), true) => webhook.state = WebhookState::Disabled { at, reason },
                _ => {}
            }
            None
        })
        .await
    }

    /// Removes a webhook, and returns it as it was.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn remove(
        &self,
        principal: &Principal,
        id: WebhookId,
    ) -> Result<Webhook, WebhookError> {
        let webhook = self.managed(principal, id).await?;
        self.store.remove(id).await?;
        Ok(webhook)
    }

    /// Replaces the secret. The old one signs beside the new one for [`WebhookLimits::keep_old_secret`]. Until then the secret cannot be
    /// replaced again.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn rotate_secret(
        &self,
        principal: &Principal,
        id: WebhookId,
        secret: &SigningSecret,
    ) -> Result<Webhook, WebhookError> {
        let now = self.now();
        let until = now.after(self.limits.keep_old_secret);
        let stored = self.managed(principal, id).await?;
        // A third secret would end the oldest one, which the receiver may still use.
        if let Some((_, until)) = stored.secrets.previous.filter(|(_, until)| now < *until) {
            return Err(WebhookError::RotatedRecently(until));
        }
        self.update(principal, id, |webhook| {
            let old = webhook.secrets.current.clone();
            webhook.secrets = SigningSecrets {
                current: secret.clone(),
                previous: Some((old, until)),
            };
            None
        })
        .await
    }

    /// Delivers events again: the cursor goes back, and the deliveries continue from there. The ids of events stay the same.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn replay(
        &self,
        principal: &Principal,
        id: WebhookId,
        from: ReplayFrom,
    ) -> Result<Webhook, WebhookError> {
        self.managed(principal, id).await?;
        if let ReplayFrom::After(position) = from
            && !self.writes.has_position(position).await?
        {
            return Err(WebhookError::UnknownPosition);
        }
        self.update(principal, id, |webhook| {
            Some(match from {
                ReplayFrom::After(cursor) => webhook.progress.replayed_after(cursor),
                ReplayFrom::Since(since) => webhook.progress.replayed_since(since),
            })
        })
        .await
    }

    /// Records of deliveries, the newest first, below the number `before`.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn records(
        &self,
        principal: &Principal,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, WebhookError> {
        self.read(principal, id).await?;
        Ok(self.store.records(id, outcome, before, limit).await?)
    }

    /// The locks whose next event waits for another attempt. The webhook's cursor has passed their events.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn waiting(
        &self,
        principal: &Principal,
        id: WebhookId,
    ) -> Result<Vec<WaitingLock>, WebhookError> {
        self.read(principal, id).await?;
        Ok(self.store.waiting(id).await?)
    }

    /// Delivers a test now, also to a webhook that is disabled.
    ///
    /// # Errors
    /// See [`WebhookError`]. A failure of the endpoint is no error.
    pub async fn test(
        &self,
        principal: &Principal,
        id: WebhookId,
        timeout: Duration,
    ) -> Result<TestDelivery, WebhookError> {
        let webhook = self.managed(principal, id).await?;
        let message = WebhookMessage::Test(WebhookTest {
            id: format!(
                "test-{}",
                WebhookId::from_u128(self.writes.ports.ids.next_id())
            ),
            time: self.now(),
            organization: match &webhook.owner {
                WebhookOwner::Organization(organization) => Some(organization.clone()),
                WebhookOwner::EveryOrganization => None,
            },
        });
        Ok(self.deliver_once(&webhook, message, timeout).await)
    }

    /// Delivers one event again, now. It is not tried again if it fails, and the deliveries of other events go on meanwhile.
    ///
    /// # Errors
    /// See [`WebhookError`]. A failure of the endpoint is no error.
    pub async fn replay_event(
        &self,
        principal: &Principal,
        id: WebhookId,
        event: EventId,
        timeout: Duration,
    ) -> Result<TestDelivery, WebhookError> {
        let webhook = self.managed(principal, id).await?;
        let found = self.event_of(&webhook, event).await?;
        let message = WebhookMessage::Event(Box::new(found.ok_or(WebhookError::EventNotFound)?));
        Ok(self.deliver_once(&webhook, message, timeout).await)
    }

    async fn deliver_once(
        &self,
        webhook: &Webhook,
        message: WebhookMessage,
        timeout: Duration,
    ) -> TestDelivery {
        let sending = self.sender.send(webhook, &message, self.now(), timeout);
        let answer = sending.await;
        TestDelivery {
            outcome: match policy::judge(&answer, true) {
                policy::Verdict::Delivered => DeliveryOutcome::Delivered,
                policy::Verdict::Rejected | policy::Verdict::Gone => DeliveryOutcome::Rejected,
                policy::Verdict::Failed { .. } => DeliveryOutcome::Failed,
            },
            message,
            answer,
        }
    }

    /// The event, if the webhook's owner may access its lock.
    async fn event_of(
        &self,
        webhook: &Webhook,
        event: EventId,
    ) -> Result<Option<WebhookEvent>, RepoError> {
        let EventId { lock, version } = event;
        let owner = webhook.owner.principal();
        let Some(snapshot) = self.writes.ports.locks.load(lock).await? else {
            return Ok(None);
        };
        if !self.writes.access.may_access(&owner, &snapshot.lock) {
            return Ok(None);
        }
        let history = &self.writes.ports.history;
        let events = history.events(lock, version, 1).await?;
        let recorded = events.into_iter().find(|event| event.version == version);
        Ok(recorded.map(|recorded| WebhookEvent {
            recorded,
            organization: snapshot.lock.organization.clone(),
        }))
    }

    /// Decides a change on the stored webhook, again if another change comes first. `decide` may return another progress.
    async fn update(
        &self,
        principal: &Principal,
        id: WebhookId,
        decide: impl Fn(&mut Webhook) -> Option<WebhookProgress> + Send + Sync,
    ) -> Result<Webhook, WebhookError> {
        for _ in 1..MAX_TRIES {
            let mut webhook = self.managed(principal, id).await?;
            let progress = decide(&mut webhook);
            match self.store.update(&webhook, progress).await {
                Err(RepoError::Stale) => continue,
                updated => updated?,
            }
            webhook.revision = webhook.revision.next();
            webhook.progress = progress.unwrap_or(webhook.progress);
            return Ok(webhook);
        }
        Err(RepoError::Stale.into())
    }
}
