//! The deliveries of one webhook: it reads the feed, sends what the queue says, and saves the progress.

use std::time::Duration;

use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, DisabledReason, EndpointAnswer, NoAnswer, Position,
    ProgressSave, Timestamp, Webhook, WebhookEvent, WebhookMessage, WebhookUrl,
};
use keywright_domain::policy::{self, DeliveryQueue, NextDelivery};
use keywright_domain::ports::RepoError;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::recent_events::{BATCH, Follower};

/// How long progress waits to be saved, so that several deliveries share a save. After a crash they are delivered again.
const SAVE_EVERY: Duration = Duration::from_millis(200);

/// How long a cursor waits to be saved that has only passed events which are not delivered.
const SAVE_CURSOR_EVERY: Duration = Duration::from_secs(10);

/// The longest pause. Attempts are due by the wall clock, which may be set.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The pause before new events are read, so that events which are recorded together are read together.
const READ_PAUSE: Duration = Duration::from_millis(5);

/// The pause of a delivery whose event could not be read from the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How many attempts are recorded with one save. Of more, the oldest are not recorded.
const MAX_RECORDS: usize = 100;

pub(super) struct Endpoint {
    shared: Shared,
    updates: watch::Receiver<Webhook>,
    webhook: Webhook,
    records: Vec<DeliveryRecord>,
    last_save: Instant,
    /// Deliveries have ended since the last save.
    has_ended_some: bool,
}

/// A delivery that has ended.
struct Ended {
    next: NextDelivery,
    result: Result<Option<Sent>, RepoError>,
}

/// An event that was sent, and its answer.
struct Sent {
    /// The URL to which it was sent.
    url: WebhookUrl,
    message: WebhookMessage,
    event: WebhookEvent,
    at: Timestamp,
    took: Duration,
    answer: Result<EndpointAnswer, NoAnswer>,
}

/// Why the deliveries of a webhook end here.
enum Stop {
    /// The service stops.
    Stopping,
    /// The webhook is disabled, was replayed, or belongs to another process.
    Changed,
    Store(RepoError),
}

impl From<RepoError> for Stop {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::Stale => Self::Changed,
            error => Self::Store(error),
        }
    }
}

/// A delivery that panics starts again with the deliveries of its webhook.
fn panicked(error: JoinError) -> Stop {
    error!(%error, "a delivery has panicked");
    Stop::Changed
}

impl Endpoint {
    pub(super) fn new(shared: Shared, mut updates: watch::Receiver<Webhook>) -> Self {
        let webhook = updates.borrow_and_update().clone();
        Self {
            shared,
            updates,
            webhook,
            records: Vec::new(),
            last_save: Instant::now(),
            has_ended_some: false,
        }
    }

    /// Delivers until the webhook is disabled or changed in a way that needs another start, or the store fails. The caller starts again.
    pub(super) async fn run(mut self) {
        let id = self.webhook.id;
        match self.deliver().await {
            Err(Stop::Store(error)) => {
                warn!(webhook = %id, %error, "the deliveries of a webhook are interrupted");
                // Not at once again while the store fails.
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(Stop::Changed | Stop::Stopping) | Ok(()) => {}
        }
    }

    async fn deliver(&mut self) -> Result<(), Stop> {
        let mut queue = self.shared.webhooks.queue(&self.webhook).await?;
        let (stored, cursor) = (self.webhook.progress.cursor, queue.progress().cursor);
        if cursor < stored {
            let webhook = self.webhook.id;
            warn!(%webhook, cursor = cursor.0, stored = stored.0, "the store of locks is older than that of webhooks; a webhook continues at the end of the feed");
        }
        let mut follower = self.shared.recent_events.follow();
        let mut deliveries = JoinSet::new();
        loop {
            if self.updates.has_changed().unwrap_or(false) {
                let updated = self.updates.borrow_and_update().clone();
                self.take_over(updated, &queue)?;
            }
            let stopping = self.shared.stopping.is_cancelled();
            let mut may_have_more = false;
            if !stopping && let Some(after) = queue.read_after() {
                may_have_more = self.read(&mut queue, &mut follower, after).await?;
            }
            while !stopping && let Some(next) = queue.start(self.shared.webhooks.time()) {
                self.start(&mut deliveries, next);
            }
            while let Some(ended) = deliveries.try_join_next() {
                self.end(&mut queue, ended.map_err(panicked)?).await?;
            }
            if self.must_save(&queue) || stopping && queue.in_progress() == 0 {
                self.save(&mut queue, None).await?;
            }
            if stopping && queue.in_progress() == 0 {
                return Err(Stop::Stopping);
            }
            if may_have_more && queue.read_after().is_some() {
                tokio::task::yield_now().await;
                continue;
            }
            let pause = self.pause(&queue);
            let can_read = !stopping && queue.read_after().is_some();
            tokio::select! {
                Some(ended) = deliveries.join_next(), if !deliveries.is_empty() => {
                    self.end(&mut queue, ended.map_err(panicked)?).await?;
                }
                () = follower.added(), if can_read => tokio::time::sleep(READ_PAUSE).await,
                _ = self.updates.changed() => self.updates.mark_changed(),
                () = self.shared.stopping.cancelled(), if !stopping => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Uses the webhook as its owner has changed it. Deliveries continue, unless the owner has also set the progress: then they start anew.
    fn take_over(&mut self, updated: Webhook, queue: &DeliveryQueue) -> Result<(), Stop> {
        if !updated.is_enabled() || !queue.continues(&updated.progress) {
            return Err(Stop::Changed);
        }
        self.webhook = updated;
        Ok(())
    }

    /// Reads events behind `after`. Returns whether there may be more.
    async fn read(
        &self,
        queue: &mut DeliveryQueue,
        follower: &mut Follower,
        after: Position,
    ) -> Result<bool, RepoError> {
        let webhooks = &self.shared.webhooks;
        if let Some(recent) = follower.events_after(after) {
            for (recent, lock) in &recent {
                let event = (recent.position, &recent.event);
                webhooks.offer(&self.webhook, queue, event, lock);
            }
            return Ok(recent.len() == BATCH);
        }
        let recent = follower.recent();
        let _permit = recent.catch_up().await;
        let page = self.shared.writes.follow_feed(after, BATCH).await?;
        for event in &page.events {
            let logged = (event.logged.position, &event.logged.event);
            webhooks.offer(&self.webhook, queue, logged, &event.lock);
        }
        queue.pass(page.next);
        Ok(!page.is_end)
    }

    fn start(&self, deliveries: &mut JoinSet<Ended>, next: NextDelivery) {
        let (webhooks, webhook) = (self.shared.webhooks.clone(), self.webhook.clone());
        deliveries.spawn(async move {
            let event = match webhooks.event(&webhook, &next).await {
                Ok(Some(event)) => event,
                Ok(None) => {
                    let result = Ok(None);
                    return Ended { next, result };
                }
                Err(error) => {
                    let result = Err(error);
                    return Ended { next, result };
                }
            };
            let message = WebhookMessage::Event(Box::new(event.clone()));
            let (at, begin) = (webhooks.time(), Instant::now());
            let answer = webhooks.send(&webhook, &message, at).await;
            let sent = Sent {
                url: webhook.url.clone(),
                message,
                event,
                at,
                took: begin.elapsed(),
                answer,
            };
            let result = Ok(Some(sent));
            Ended { next, result }
        });
    }

    async fn end(&mut self, queue: &mut DeliveryQueue, ended: Ended) -> Result<(), Stop> {
        let Ended { next, result } = ended;
        let webhooks = self.shared.webhooks.clone();
        let sent = match result {
            Ok(sent) => sent,
            // The event, or its lock, could not be read.
            Err(error) => {
                warn!(webhook = %self.webhook.id, %error, "an event cannot be read for its delivery");
                queue.postpone(&next, webhooks.time().after(STORE_PAUSE));
                return Ok(());
            }
        };
        let version = sent.as_ref().map(|sent| sent.event.recorded.version);
        if next.event.is_none() {
            queue.found(&next, version);
        }
        let (Some(sent), Some(version)) = (sent, version) else {
            if next.event.is_some() {
                queue.skip(&next, webhooks.time());
            }
            return Ok(());
        };
        let verdict = policy::judge(&sent.answer, sent.url == self.webhook.url);
        let was_failing = queue.is_failing();
        let (now, random) = (webhooks.time(), webhooks.random());
        let finished = queue.finish(next.lock, version, verdict, now, random);
        self.shared.metrics.delivered(finished.outcome, sent.took);
        if was_failing != queue.is_failing() {
            let webhook = self.webhook.id;
            let owner = &self.webhook.owner;
            match was_failing {
                true => info!(%webhook, %owner, "a webhook accepts deliveries again"),
                false => warn!(%webhook, %owner, "the deliveries of a webhook fail"),
            }
        }
        self.record(DeliveryRecord {
            number: 0,
            message: sent.message.id(),
            event_type: sent.message.event_type(),
            at: sent.at,
            took: sent.took,
            outcome: finished.outcome,
            answer: sent.answer,
            next_attempt: finished.next_attempt,
        });
        self.has_ended_some = true;
        match finished.disable {
            None => Ok(()),
            Some(reason) => {
                let webhook = self.webhook.id;
                warn!(%webhook, owner = %self.webhook.owner, reason = reason.name(), "a webhook is disabled");
                self.save(queue, Some(reason)).await?;
                Err(Stop::Changed)
            }
        }
    }

    fn record(&mut self, record: DeliveryRecord) {
        if self.records.len() == MAX_RECORDS {
            let is_delivered = |r: &DeliveryRecord| r.outcome == DeliveryOutcome::Delivered;
            let oldest = self.records.iter().position(is_delivered).unwrap_or(0);
            self.records.remove(oldest);
        }
        self.records.push(record);
    }

    fn must_save(&self, queue: &DeliveryQueue) -> bool {
        let age = self.last_save.elapsed();
        let is_urgent = self.has_ended_some || queue.has_urgent_changes();
        age >= SAVE_CURSOR_EVERY || is_urgent && age >= SAVE_EVERY
    }

    fn pause(&self, queue: &DeliveryQueue) -> Duration {
        let now = self.shared.webhooks.time();
        let due = queue.next_due().map(|due| due.since(now));
        // A lock that is due now waits for another delivery to end.
        let due = due.filter(|due| !due.is_zero()).unwrap_or(MAX_PAUSE);
        let is_urgent = self.has_ended_some || queue.has_urgent_changes();
        let save = match is_urgent {
            true => SAVE_EVERY.saturating_sub(self.last_save.elapsed()),
            false => MAX_PAUSE,
        };
        due.min(save).min(MAX_PAUSE)
    }

    async fn save(
        &mut self,
        queue: &mut DeliveryQueue,
        disable: Option<DisabledReason>,
    ) -> Result<(), Stop> {
        self.last_save = Instant::now();
        self.has_ended_some = false;
        let changes = queue.changes();
        if changes.is_none() && self.records.is_empty() && disable.is_none() {
            return Ok(());
        }
        let (put, remove) = changes.map(|c| (c.put, c.remove)).unwrap_or_default();
        let webhooks = self.shared.webhooks.clone();
        let mut save = ProgressSave {
            webhook: self.webhook.id,
            worker: webhooks.worker(),
            revision: self.webhook.revision,
            progress: queue.progress(),
            put,
            remove,
            records: std::mem::take(&mut self.records),
            disable: disable.map(|reason| (reason, webhooks.time())),
        };
        let saved = webhooks.save_progress(save.clone()).await;
        if saved != Err(RepoError::Stale) {
            return Ok(saved?);
        }
        // Its owner may have changed it.
        let stored = webhooks.stored(self.webhook.id).await?;
        let url = self.webhook.url.clone();
        self.take_over(stored.ok_or(Stop::Changed)?, queue)?;
        if self.webhook.url != url {
            // What the earlier URL answered says nothing about this one.
            save.disable = None;
        }
        save.revision = self.webhook.revision;
        Ok(webhooks.save_progress(save).await?)
    }
}
