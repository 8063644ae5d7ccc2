//! Deliveries of events to webhooks: one task for each webhook that this process holds.

mod endpoint;
mod lag;
mod shared;

use std::collections::HashMap;
use std::time::Duration;

use keywright_domain::model::{Webhook, WebhookId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::endpoint::Endpoint;
use crate::webhook_service::WebhookService;

pub(crate) use lag::watch_lag;
pub(crate) use shared::Shared;

/// How long a webhook is held. Another replica takes it over after this time when its process has died.
const LEASE: Duration = Duration::from_secs(15);

/// How often webhooks are claimed, which also finds those that other replicas have changed.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// How long deliveries in progress may take while the service stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

struct Running {
    /// The webhook as the task is to use it.
    webhook: watch::Sender<Webhook>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Delivers the events of all webhooks that this process holds. When the service stops, it ends the deliveries, releases the webhooks, and
/// cancels `stopped`.
pub(crate) async fn deliver_all(
    service: WebhookService,
    shared: Shared,
    stopped: CancellationToken,
) {
    let mut running: HashMap<WebhookId, Running> = HashMap::new();
    let mut is_reported = false;
    while !shared.stopping.is_cancelled() {
        match service.webhooks.claim(LEASE).await {
            Ok(claimed) => {
                follow(&mut running, claimed, &shared);
                is_reported = false;
            }
            Err(error) => {
                if !is_reported {
                    warn!(%error, "webhooks cannot be claimed");
                }
                is_reported = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(CLAIM_EVERY) => {}
            () = service.changed.notified() => {}
            () = shared.stopping.cancelled() => {}
        }
    }
    let ended = async {
        for running in running.values_mut() {
            // A task that has panicked has ended, too.
            let _ = (&mut running.task).await;
        }
    };
    let _ = tokio::time::timeout(STOP_TIMEOUT, ended).await;
    drop(running);
    if let Err(error) = service.webhooks.release().await {
        info!(%error, "webhooks are not released; another replica takes them over after their lease");
    }
    stopped.cancel();
    // The end of a worker ends the service.
    std::future::pending::<()>().await;
}

/// Starts and ends tasks, so that there is one for each claimed webhook.
fn follow(running: &mut HashMap<WebhookId, Running>, claimed: Vec<Webhook>, shared: &Shared) {
    let ids: Vec<WebhookId> = claimed.iter().map(|webhook| webhook.id).collect();
    running.retain(|id, running| ids.contains(id) && !running.task.is_finished());
    for webhook in claimed {
        match running.get(&webhook.id) {
            Some(running) => {
                let has_changed = running.webhook.borrow().revision != webhook.revision;
                if has_changed {
                    running.webhook.send_replace(webhook);
                }
            }
            None => {
                let id = webhook.id;
                let (sender, receiver) = watch::channel(webhook);
                let endpoint = Endpoint::new(shared.clone(), receiver);
                let task = tokio::spawn(endpoint.run());
                let started = Running {
                    webhook: sender,
                    task,
                };
                running.insert(id, started);
            }
        }
    }
}
