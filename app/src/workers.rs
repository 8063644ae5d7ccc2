//! What goes on beside the requests: reports are settled, unfinished writes recovered, locks kept tidy.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::ports::{DeviceReport, DeviceReports, ReportStreamItem};
use keywright_domain::rules::Ignored;
use keywright_domain::{KeyWrites, Settlement};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// How often unfinished and due writes are looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// How many unfinished writes are recovered at once: the pace of recovery.
const RECOVERIES: usize = 8;

/// How many due writes are read at once.
const PAGE: usize = 64;

/// How many reports are settled at once.
const SETTLING: usize = 64;

/// The pauses between the tries to settle one report.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Starts all of them. They end with the set.
pub(crate) fn start(writes: &Arc<KeyWrites>, reports: Arc<dyn DeviceReports>) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    workers.spawn(follow(reports, writes.clone()));
    for _ in 0..RECOVERIES {
        workers.spawn(recover(writes.clone()));
    }
    workers.spawn(maintain(writes.clone()));
    workers
}

/// Settles what locks report. The stream is read on while reports are being settled.
async fn follow(reports: Arc<dyn DeviceReports>, writes: Arc<KeyWrites>) {
    look_at_all(&writes).await;
    let places = Arc::new(Semaphore::new(SETTLING));
    let mut settling = JoinSet::new();
    loop {
        match reports.next().await {
            Ok(ReportStreamItem::Report(report, acknowledge)) => {
                // The semaphore is never closed.
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                let writes = writes.clone();
                settling.spawn(async move {
                    settle(&writes, &report).await;
                    acknowledge();
                    drop(place);
                });
                while settling.try_join_next().is_some() {}
            }
            Ok(ReportStreamItem::Resumed) => look_at_all(&writes).await,
            Err(closed) => {
                error!(%closed, "reports are found on the shadows only from now on");
                return;
            }
        }
    }
}

/// Tries until the report is settled.
async fn settle(writes: &KeyWrites, report: &DeviceReport) {
    let mut pause = FIRST_PAUSE;
    loop {
        match writes.settle(report).await {
            Ok(settlements) => {
                let results = report.results.iter().zip(settlements);
                for (result, settlement) in results {
                    let (thing, write) = (&report.thing, result.write);
                    match settlement {
                        Settlement::Ignored(Ignored::Contradiction) => {
                            warn!(%thing, %write, "contradiction: no such write was sent");
                        }
                        Settlement::Ignored(Ignored::WrongThing) => {
                            warn!(%thing, %write, "contradiction: the write is another thing's");
                        }
                        Settlement::Recorded(_) | Settlement::Ignored(_) => {}
                    }
                }
                return;
            }
            Err(error) => warn!(thing = %report.thing, %error, "trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Reads the shadows of all open writes.
async fn look_at_all(writes: &KeyWrites) {
    let (mut after, mut failed) = (None, 0);
    loop {
        match writes.look_at_all(after, PAGE).await {
            Ok(done) => {
                failed += done.failed;
                after = done.next;
            }
            Err(error) => return warn!(%error, "open writes could not be listed"),
        }
        if after.is_none() {
            break;
        }
    }
    if failed > 0 {
        warn!(failed, "shadows could not be read; reports may be missing");
    }
}

/// Step 8, at start-up and every second.
async fn recover(writes: Arc<KeyWrites>) {
    loop {
        match writes.recover_next().await {
            Ok(Some(write)) => {
                info!(%write, "an unfinished write was taken up again");
                continue;
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "unfinished writes could not be looked for"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn maintain(writes: Arc<KeyWrites>) {
    let mut after = None;
    loop {
        match writes.maintain(after, PAGE).await {
            Ok(done) => after = done.next,
            Err(error) => {
                warn!(%error, "due writes could not be listed");
                after = None;
            }
        }
        if after.is_none() {
            tokio::time::sleep(PERIOD).await;
        }
    }
}
