//! Settling of the reports of locks.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::DeviceReport;
use keywright_domain::ports::{Acknowledge, DeviceReports, ReportStreamItem};
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::event::RunnerEvent;

/// The first pause between the attempts to settle one report. Its client may be waiting for the acknowledgement.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest of these pauses.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Settles the reports of one stream, and acknowledges each when it is settled. The next reports are read meanwhile.
pub(crate) async fn settle_reports(context: Arc<Context>, reports: Arc<dyn DeviceReports>) {
    let permits = Arc::new(Semaphore::new(context.pacing.settlements));
    loop {
        // A report is taken from the stream only when it can be settled at once. The semaphore is never closed.
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, reports.next().await)
        };
        let (permit, item) = tokio::select! {
            () = context.stopping() => return,
            next = next => next,
        };
        match item {
            Ok(ReportStreamItem::Report(report, acknowledge)) => {
                let job = context.clone();
                context.spawn_job("the settlement of a report", async move {
                    settle(&job, &report, acknowledge).await;
                    drop(permit);
                });
            }
            Ok(ReportStreamItem::Resumed) => context.reconcile.notify_one(),
            Err(_) => return context.observe(&RunnerEvent::ReportsEnded),
        }
    }
}

/// Settles one report, with as many attempts as it takes until the runner is stopped.
async fn settle(context: &Context, report: &DeviceReport, acknowledge: Acknowledge) {
    let mut pause = FIRST_PAUSE;
    loop {
        match context.writes.settle(report).await {
            Ok(settlements) => {
                context.observe(&RunnerEvent::Settled(report, &settlements));
                return acknowledge();
            }
            Err(error) => context.observe(&RunnerEvent::SettlingFailed(report, &error)),
        }
        if !context.pause(pause).await {
            return;
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
