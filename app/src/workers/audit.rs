//! Audits of all locks at intervals (`--audit-every`).

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::LockId;
use keywright_domain::ports::LockHistory;
use keywright_domain::{AuditReport, KeyWrites};
use tracing::warn;

use crate::metrics::Metrics;

/// The pause before the audit of each lock: 20 locks a second, because requests need the shadows, too.
const PAUSE: Duration = Duration::from_millis(50);

/// How many locks one page of the store has.
const PAGE: usize = 256;

/// Audits all locks at each interval, one after another. Findings are counted and logged, not repaired.
pub(crate) async fn audit_all(
    writes: Arc<KeyWrites>,
    history: Arc<dyn LockHistory>,
    metrics: Arc<Metrics>,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let mut after = None;
        loop {
            let page = match history.locks(after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(%error, "locks could not be listed for their audit");
                    break;
                }
            };
            for lock in &page {
                tokio::time::sleep(PAUSE).await;
                match writes.audit(lock.id, false).await {
                    Ok(report) => {
                        metrics.audited(&report);
                        log_findings(lock.id, &report);
                    }
                    Err(error) => warn!(lock = %lock.id, %error, "a lock could not be audited"),
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id),
                _ => break,
            }
        }
    }
}

pub(super) fn log_findings(lock: LockId, report: &AuditReport) {
    let repaired = report.repaired;
    for finding in &report.findings {
        let (write, finding) = (finding.write(), finding.name());
        warn!(%lock, %write, finding, repaired, "a shadow differs from its writes");
    }
}
