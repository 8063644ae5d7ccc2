//! Settling of the results that locks report.

use std::sync::atomic::Ordering;

use super::key_writes::KeyWrites;
use crate::model::{Anomaly, DeviceReport, Write, WriteId};
use crate::policy::{self, IgnoreReason, ReportDecision, ReportedResult};
use crate::ports::RepoError;

/// Outcome of one result of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// The result is recorded. This is the write afterwards.
    Recorded(Box<Write>),
    /// The result changed nothing.
    Ignored(IgnoreReason),
    /// The stored write or lock breaks an invariant, so the result cannot be recorded. Delivering the report again would not help.
    Corrupt(RepoError),
}

impl Settlement {
    /// Every name that [`Settlement::name`] returns.
    pub const NAMES: [&'static str; 6] = [
        "recorded",
        "repeated",
        "contradiction",
        "wrong_thing",
        "early",
        "unreadable",
    ];

    /// The kind of the settlement, as metrics name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Recorded(_) => "recorded",
            Self::Ignored(IgnoreReason::Repeated) => "repeated",
            Self::Ignored(IgnoreReason::Contradiction) => "contradiction",
            Self::Ignored(IgnoreReason::WrongThing) => "wrong_thing",
            Self::Ignored(IgnoreReason::Early) => "early",
            Self::Corrupt(_) => "unreadable",
        }
    }
}

/// The report was not settled. It must not be acknowledged, so that it is delivered again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report could not be settled: {0}")]
pub struct SettleError(#[from] pub RepoError);

/// How often a result is decided again because its lock changed meanwhile. After that the report has to be delivered again.
const MAX_ATTEMPTS: usize = 64;

impl KeyWrites {
    /// Settles a report durably. After `Ok`, acknowledge it. The settlements have the order of the report's results.
    ///
    /// # Errors
    /// The store failed for at least one result. The other results are settled; when the report is delivered again, they are
    /// ignored as repeated.
    pub async fn settle(&self, report: &DeviceReport) -> Result<Vec<Settlement>, SettleError> {
        let mut settlements = Vec::with_capacity(report.results.len());
        let mut failed = None;
        for result in &report.results {
            let reported = ReportedResult {
                thing: &report.thing,
                shadow_version: report.shadow_version,
                outcome: &result.outcome,
                entry_remains: report.entries.contains(&result.write),
            };
            let settled = self.settle_result(result.write, &reported);
            match settled.await {
                Ok(settlement) => {
                    self.count(&settlement);
                    settlements.push(settlement);
                }
                Err(error @ RepoError::Corrupt { .. }) => {
                    settlements.push(Settlement::Corrupt(error));
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(settlements),
            Some(error) => Err(SettleError(error)),
        }
    }

    /// How many results since the process started named a write that was never sent, belonged to another thing, or contradicted
    /// an earlier result of the same write. Each means that a lock or this service is wrong.
    pub fn contradictions(&self) -> u64 {
        self.contradictions.load(Ordering::Relaxed)
    }

    fn count(&self, settlement: &Settlement) {
        if let Settlement::Ignored(IgnoreReason::Contradiction | IgnoreReason::WrongThing) =
            settlement
        {
            self.contradictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn settle_result(
        &self,
        id: WriteId,
        reported: &ReportedResult<'_>,
    ) -> Result<Settlement, RepoError> {
        let Some(named) = self.ports.history.write(id).await? else {
            return Ok(Settlement::Ignored(IgnoreReason::Contradiction));
        };
        for _ in 0..MAX_ATTEMPTS {
            let Some(snapshot) = self.ports.locks.load(named.lock).await? else {
                return Ok(Settlement::Ignored(IgnoreReason::Contradiction));
            };
            // An ended write is read after the snapshot, so that any later change of it makes the save stale. A write that
            // ended in between is still open in the snapshot.
            let ended = match snapshot.unfinished(id) {
                Some(_) => None,
                None => self.ports.history.write(id).await?,
            };
            let write = snapshot.unfinished(id).or(ended.as_ref());
            let (limits, now) = (&self.settings.limits, self.ports.clock.now());
            match policy::decide_report(&snapshot, write, reported, limits, now) {
                ReportDecision::Ignore(reason) => return Ok(Settlement::Ignored(reason)),
                ReportDecision::Record(write, save) => {
                    let contradiction = (id, Anomaly::ContradictingResult);
                    let contradicts = save.new_anomalies.contains(&contradiction);
                    match self.ports.locks.save(save).await {
                        Ok(()) => {
                            let more = u64::from(contradicts);
                            self.contradictions.fetch_add(more, Ordering::Relaxed);
                            return Ok(Settlement::Recorded(write));
                        }
                        Err(RepoError::Stale) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            self.sleep(self.jittered(self.settings.first_backoff)).await;
        }
        Err(RepoError::Unavailable("the lock kept changing".into()))
    }
}
