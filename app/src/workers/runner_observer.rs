//! Logs and counts what the background tasks of the domain do.

use std::sync::Arc;

use keywright_domain::Settlement;
use keywright_domain::model::DeviceReport;
use keywright_domain::policy::IgnoreReason;
use keywright_runner::{RunnerEvent, RunnerObserver};
use tracing::{error, info, warn};

use super::audit::log_findings;
use crate::metrics::Metrics;

pub(super) struct LoggingObserver(pub(super) Arc<Metrics>);

impl RunnerObserver for LoggingObserver {
    fn observe(&self, event: &RunnerEvent<'_>) {
        match event {
            RunnerEvent::Recovered(write) => info!(%write, "an unfinished write was recovered"),
            RunnerEvent::NotYetReconciled(failed) => {
                warn!(failed, "open writes are not reconciled yet; trying again");
            }
            RunnerEvent::Repaired(lock, report) => {
                self.0.audited(report);
                log_findings(*lock, report);
            }
            RunnerEvent::Settled(report, settlements) => self.settled(report, settlements),
            RunnerEvent::SettlingFailed(report, error) => {
                let thing = &report.thing;
                warn!(%thing, %error, "a report could not be settled; trying again");
            }
            RunnerEvent::ReportsEnded => error!("the stream of reports has ended"),
            event => warn!("{event}"),
        }
    }
}

impl LoggingObserver {
    fn settled(&self, report: &DeviceReport, settlements: &[Settlement]) {
        let thing = &report.thing;
        for (result, settlement) in report.results.iter().zip(settlements) {
            let write = result.write;
            self.0.reported(settlement);
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
}
