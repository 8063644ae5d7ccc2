//! Background tasks: they settle reports, recover intents, maintain writes, purge old records, and count the backlog.

pub(crate) mod audit;
pub(crate) mod store_health;

mod maintenance;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::KeyWrites;
use keywright_domain::ports::DeviceReports;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::maintenance::{MaintenanceScheduler, maintain, reconcile_all};
use self::reports::settle_reports;
use crate::metrics::Metrics;

/// How many intents are recovered at once.
const RECOVERIES: usize = 8;

/// How often intents with an ended lease are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(1);

/// How often old records are purged, how many at once, and the pause after a full batch.
const PURGE_EVERY: Duration = Duration::from_secs(3);
const PURGE_BATCH: usize = 256;
const PURGE_PAUSE: Duration = Duration::from_millis(100);

/// How often the backlog is counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Adds the tasks to `workers`. None of them ends by itself; dropping the set ends them.
pub(crate) fn start(
    writes: &Arc<KeyWrites>,
    reports: Vec<Arc<dyn DeviceReports>>,
    metrics: &Arc<Metrics>,
    workers: &mut JoinSet<()>,
) {
    let scheduler = Arc::new(MaintenanceScheduler::new(writes.clone(), metrics.clone()));
    let reconcile = Arc::new(Notify::new());
    // Reports may have been missed before the start.
    reconcile.notify_one();
    for reports in reports {
        let (writes, metrics) = (writes.clone(), metrics.clone());
        workers.spawn(settle_reports(reports, writes, reconcile.clone(), metrics));
    }
    workers.spawn(reconcile_all(scheduler.clone(), reconcile.clone()));
    workers.spawn(maintain(scheduler, reconcile));
    workers.spawn(purge(writes.clone()));
    workers.spawn(count_backlog(writes.clone(), metrics.clone()));
    for _ in 0..RECOVERIES {
        workers.spawn(recover(writes.clone()));
    }
}

/// Recovers intents whose leases have ended (step 8), at start-up and every second.
async fn recover(writes: Arc<KeyWrites>) {
    loop {
        match writes.recover_next().await {
            Ok(Some(write)) => {
                info!(%write, "an unfinished write was recovered");
                continue;
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "unfinished writes could not be recovered"),
        }
        tokio::time::sleep(RECOVER_EVERY).await;
    }
}

/// Counts the backlog for the metrics, so that reading the metrics does not use the store.
async fn count_backlog(writes: Arc<KeyWrites>, metrics: Arc<Metrics>) {
    loop {
        match writes.backlog().await {
            Ok(backlog) => metrics.backlog(&backlog),
            Err(error) => warn!(%error, "unfinished writes could not be counted"),
        }
        metrics.contradictions(writes.contradictions());
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Deletes old records in small batches.
async fn purge(writes: Arc<KeyWrites>) {
    loop {
        let pause = match writes.purge(PURGE_BATCH).await {
            Ok(purged) if purged >= PURGE_BATCH => PURGE_PAUSE,
            Ok(_) => PURGE_EVERY,
            Err(error) => {
                warn!(%error, "old records could not be deleted");
                PURGE_EVERY
            }
        };
        tokio::time::sleep(pause).await;
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
