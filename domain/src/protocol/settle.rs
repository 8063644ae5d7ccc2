//! What locks report, taken in.

use std::sync::atomic::Ordering;

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
    /// What is stored of the write or its lock breaks an invariant, so that nobody can tell. Its coming again
    /// would not help.
    Unreadable(RepoError),
}

/// The report is not settled, and must not be acknowledged: it has to come again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report could not be settled: {0}")]
pub struct SettleError(#[from] pub RepoError);

/// How often a report is decided anew when its lock changes under it; then it has to come again.
const MOST_TRIES: usize = 64;

impl KeyWrites {
    /// Settles a report durably; acknowledge it after an `Ok`. The answers stand in its order.
    ///
    /// # Errors
    /// The store failed for at least one of its results. The others are settled, which a repeat finds out.
    pub async fn settle(&self, report: &DeviceReport) -> Result<Vec<Settlement>, SettleError> {
        let mut settlements = Vec::with_capacity(report.results.len());
        let mut failed = None;
        for result in &report.results {
            let settled = self.settle_result(&report.thing, report.shadow_version, result);
            match settled.await {
                Ok(settlement) => {
                    self.count(&settlement);
                    settlements.push(settlement);
                }
                Err(error @ RepoError::Corrupt { .. }) => {
                    settlements.push(Settlement::Unreadable(error));
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(settlements),
            Some(error) => Err(SettleError(error)),
        }
    }

    /// How many results named no write that was sent, or another thing's, since the process started: either
    /// a lock or we are wrong.
    pub fn contradictions(&self) -> u64 {
        self.contradictions.load(Ordering::Relaxed)
    }

    fn count(&self, settlement: &Settlement) {
        if let Settlement::Ignored(Ignored::Contradiction | Ignored::WrongThing) = settlement {
            self.contradictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn settle_result(
        &self,
        thing: &ThingName,
        shadow_version: Option<ShadowVersion>,
        result: &DeviceResult,
    ) -> Result<Settlement, RepoError> {
        let Some(named) = self.ports.history.write(result.write).await? else {
            return Ok(Settlement::Ignored(Ignored::Contradiction));
        };
        for _ in 0..MOST_TRIES {
            let Some(snapshot) = self.ports.locks.load(named.lock).await? else {
                return Ok(Settlement::Ignored(Ignored::Contradiction));
            };
            // A write that is over is read after the snapshot, so that any later change of it makes the
            // save stale; one that ended only in between is still open to the snapshot's eyes.
            let ended = match snapshot.unfinished(result.write) {
                Some(_) => None,
                None => self.ports.history.write(result.write).await?,
            };
            let write = snapshot.unfinished(result.write).or(ended.as_ref());
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
            self.rest(self.jittered(self.settings.first_pause)).await;
        }
        Err(RepoError::Unavailable("the lock kept changing".into()))
    }
}
