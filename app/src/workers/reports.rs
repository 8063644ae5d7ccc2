//! Settling of the reports of locks.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::DeviceReport;
use keywright_domain::policy::IgnoreReason;
use keywright_domain::ports::{DeviceReports, ReportStreamItem};
use keywright_domain::{KeyWrites, Settlement};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::metrics::Metrics;

/// How many reports of one stream are settled at once.
const SETTLING: usize = 64;

/// The pauses between the attempts to settle one report.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Settles the reports of one stream, and acknowledges each when it is settled. The next reports are read meanwhile. `reconcile` is
/// notified when the stream may have missed reports.
pub(super) async fn settle_reports(
    reports: Arc<dyn DeviceReports>,
    writes: Arc<KeyWrites>,
    reconcile: Arc<Notify>,
    metrics: Arc<Metrics>,
) {
    let permits = Arc::new(Semaphore::new(SETTLING));
    let mut settling = JoinSet::new();
    loop {
        match reports.next().await {
            Ok(ReportStreamItem::Report(report, acknowledge)) => {
                // The semaphore is never closed.
                let Ok(permit) = permits.clone().acquire_owned().await else {
                    return;
                };
                let (writes, metrics) = (writes.clone(), metrics.clone());
                settling.spawn(async move {
                    settle(&writes, &report, &metrics).await;
                    acknowledge();
                    drop(permit);
                });
                while settling.try_join_next().is_some() {}
            }
            Ok(ReportStreamItem::Resumed) => reconcile.notify_one(),
            Err(closed) => return error!(%closed, "the stream of reports has ended"),
        }
    }
}

/// Settles one report, with as many attempts as it takes.
async fn settle(writes: &KeyWrites, report: &DeviceReport, metrics: &Metrics) {
    let thing = &report.thing;
    let mut pause = FIRST_PAUSE;
    let settlements = loop {
        match writes.settle(report).await {
            Ok(settlements) => break settlements,
            Err(error) => warn!(%thing, %error, "a report could not be settled; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    };
    for (result, settlement) in report.results.iter().zip(settlements) {
        let write = result.write;
        metrics.reported(&settlement);
        match settlement {
            Settlement::Ignored(IgnoreReason::Contradiction) => {
                warn!(%thing, %write, "contradiction: no such write was sent");
            }
            Settlement::Ignored(IgnoreReason::WrongThing) => {
                warn!(%thing, %write, "contradiction: the write is another thing's");
            }
            Settlement::Corrupt(error) => {
                error!(%thing, %write, %error, "the report cannot be settled");
            }
            Settlement::Recorded(_) | Settlement::Ignored(_) => {}
        }
    }
}
