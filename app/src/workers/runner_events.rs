//! Logs and counts what the background tasks of the domain do.

use keywright_domain::Settlement;
use keywright_domain::model::DeviceReport;
use keywright_domain::policy::IgnoreReason;
use keywright_runner::RunnerEvent;
use tracing::{error, info, warn};

use super::audit::log_findings;
use crate::metrics::Metrics;

pub(super) fn observe(event: &RunnerEvent<'_>, metrics: &Metrics) {
    match event {
        RunnerEvent::Recovered(write) => info!(%write, "an unfinished write was recovered"),
        RunnerEvent::NotYetReconciled(failed) => {
            warn!(failed, "open writes are not reconciled yet; trying again");
        }
        RunnerEvent::Repaired(lock, report) => {
            metrics.audited(report);
            log_findings(*lock, report);
        }
        RunnerEvent::Settled(report, settlements) => settled(report, settlements, metrics),
        RunnerEvent::SettlingFailed(report, error) => {
            let thing = &report.thing;
            warn!(%thing, %error, "a report could not be settled; trying again");
        }
        RunnerEvent::ReportsEnded => error!("the stream of reports has ended"),
        event => warn!("{event}"),
    }
}

fn settled(report: &DeviceReport, settlements: &[Settlement], metrics: &Metrics) {
    let thing = &report.thing;
    for (result, settlement) in report.results.iter().zip(settlements) {
        let write = result.write;
        metrics.reported(settlement);
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
            _ => {}
        }
    }
}
