//! What locks report, taken in.

use super::KeyWrites;
use crate::ports::{DeviceReport, DeviceResult, RepoError};
use crate::rules::{self, Ignored, ReportDecision};
use crate::values::{ShadowVersion, ThingName};
use crate::write::Write;

/// What one result of a report led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is recorded; the write as it is now.
    Recorded(Box<Write>),
    /// It changed nothing.
    Ignored(Ignored),
}

/// The report is not settled, and must not be acknowledged: it has to come again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report could not be settled: {0}")]
pub struct SettleError(#[from] pub RepoError);

impl KeyWrites {
    /// Settles a report durably; acknowledge it after an `Ok`. The answers stand in its order.
    ///
    /// # Errors
    /// The store failed. Results before the one that failed are settled, which a repeat finds out.
    pub async fn settle(&self, report: &DeviceReport) -> Result<Vec<Settlement>, SettleError> {
        let mut settlements = Vec::with_capacity(report.results.len());
        for result in &report.results {
            settlements.push(
                self.settle_result(&report.thing, report.shadow_version, result)
                    .await?,
            );
        }
        Ok(settlements)
    }

    async fn settle_result(
        &self,
        thing: &ThingName,
        shadow_version: Option<ShadowVersion>,
        result: &DeviceResult,
    ) -> Result<Settlement, RepoError> {
        loop {
            let Some(found) = self.ports.history.write(result.write).await? else {
                return Ok(Settlement::Ignored(Ignored::Contradiction));
            };
            let Some(snapshot) = self.ports.locks.load(found.lock).await? else {
                return Ok(Settlement::Ignored(Ignored::Contradiction));
            };
            // A write that was open when the history was read may be over now, and the snapshot tells
            // only that it is: then the history is to be read again.
            let unfinished = snapshot.unfinished(result.write);
            if unfinished.is_none() && (found.is_open() || found.intent().is_some()) {
                continue;
            }
            let write = Some(unfinished.unwrap_or(&found));
            let (limits, now) = (&self.settings.limits, self.ports.clock.now());
            let outcome = &result.outcome;
            match rules::decide_report(
                &snapshot,
                write,
                thing,
                shadow_version,
                outcome,
                limits,
                now,
            ) {
                ReportDecision::Ignore(why) => return Ok(Settlement::Ignored(why)),
                ReportDecision::Record(write, save) => match self.ports.locks.save(save).await {
                    Ok(()) => return Ok(Settlement::Recorded(write)),
                    Err(RepoError::Stale) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }
}
