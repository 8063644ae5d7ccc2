//! Background tasks: those of the domain, and those that only this program has.

pub(crate) mod audit;
pub(crate) mod store_health;
pub(crate) mod webhooks;

mod runner_events;

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::KeyWrites;
use keywright_domain::model::Backlog;
use keywright_domain::ports::DeviceReports;
use keywright_runner::{Runner, RunningTasks};
use tokio::sync::watch;
use tracing::warn;

use self::runner_events::observe;
use crate::metrics::Metrics;

/// How often the backlog is counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Starts the background tasks of the domain.
pub(crate) fn start(
    writes: &Arc<KeyWrites>,
    reports: Vec<Arc<dyn DeviceReports>>,
    metrics: &Arc<Metrics>,
) -> RunningTasks {
    let metrics = metrics.clone();
    Runner::new(writes.clone(), |task| drop(tokio::spawn(task)))
        .observer(move |event| observe(event, &metrics))
        .start(reports)
}

/// Counts the backlog for the metrics and the operators' page, so that reading them does not use the store.
pub(crate) async fn count_backlog(
    writes: Arc<KeyWrites>,
    metrics: Arc<Metrics>,
    last: watch::Sender<Option<Backlog>>,
) {
    let mut contradictions = 0;
    loop {
        match writes.backlog().await {
            Ok(backlog) => {
                metrics.backlog(&backlog);
                last.send_replace(Some(backlog));
            }
            Err(error) => warn!(%error, "unfinished writes could not be counted"),
        }
        let count = writes.contradictions();
        metrics.contradictions(count);
        if count > contradictions {
            warn!(count, "contradictions up to now");
            contradictions = count;
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Counts the reports that were omitted because too many waited.
pub(crate) async fn count_omitted_reports(
    mut omitted: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
) {
    while omitted.changed().await.is_ok() {
        metrics.omitted_reports(*omitted.borrow_and_update());
    }
    // The end of a worker ends the service.
    std::future::pending::<()>().await;
}
