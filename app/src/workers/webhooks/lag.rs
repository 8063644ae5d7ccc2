//! How far webhooks are behind the feed, for the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::Webhooks;
use keywright_domain::ports::RepoError;
use tracing::warn;

use crate::metrics::{Metrics, WebhookLag};

/// How often the lag is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Measures the lag of all webhooks in the store, also of those that other replicas deliver for.
pub(crate) async fn watch_lag(webhooks: Arc<Webhooks>, metrics: Arc<Metrics>) {
    loop {
        if let Err(error) = measure(&webhooks, &metrics).await {
            warn!(%error, "the lag of webhooks cannot be measured");
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

async fn measure(webhooks: &Webhooks, metrics: &Metrics) -> Result<(), RepoError> {
    let (mut worst, mut failing, mut disabled) = (BTreeMap::new(), 0, 0);
    for webhook in webhooks.all().await? {
        if !webhook.is_enabled() {
            disabled += 1;
            continue;
        }
        let failures = webhook.progress.failures;
        failing += i64::from(failures.is_some_and(|failures| failures.is_failing()));
        let (events, age) = webhooks.lag(&webhook).await?;
        let lag: &mut WebhookLag = worst.entry(webhook.owner.to_string()).or_default();
        lag.events = lag.events.max(events);
        lag.age = lag.age.max(age);
    }
    metrics.webhooks(&worst, failing, disabled);
    Ok(())
}
