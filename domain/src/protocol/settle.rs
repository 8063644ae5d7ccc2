//! What locks report, taken in.

use std::sync::atomic::Ordering;

use super::KeyWrites;
use crate::anomaly::Anomaly;
use crate::ports::{DeviceReport, RepoError};
use crate::rules::{self, Ignored, ReportDecision, ReportedResult};
use crate::values::WriteId;
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
            let reported = ReportedResult {
                thing: &report.thing,
                shadow_version: report.shadow_version,
                outcome: &result.outcome,
                entry_left: report.entries.contains(&result.write),
            };
            let settled = self.settle_result(result.write, &reported);
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

    /// How many results named no write that was sent, or another thing's, or said something else of a write than the
    /// lock had said before, since the process started: either a lock or we are wrong.
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
        id: WriteId,
        reported: &ReportedResult<'_>,
    ) -> Result<Settlement, RepoError> {
        let Some(named) = self.ports.history.write(id).await? else {
            return Ok(Settlement::Ignored(Ignored::Contradiction));
        };
        for _ in 0..MOST_TRIES {
            let Some(snapshot) = self.ports.locks.load(named.lock).await? else {
                return Ok(Settlement::Ignored(Ignored::Contradiction));
            };
            // A write that is over is read after the snapshot, so that any later change of it makes the
            // save stale; one that ended only in between is still open to the snapshot's eyes.
            let ended = match snapshot.unfinished(id) {
                Some(_) => None,
                None => self.ports.history.write(id).await?,
            };
            let write = snapshot.unfinished(id).or(ended.as_ref());
            let (limits, now) = (&self.settings.limits, self.ports.clock.now());
            match rules::decide_report(&snapshot, write, reported, limits, now) {
                ReportDecision::Ignore(why) => return Ok(Settlement::Ignored(why)),
                ReportDecision::Record(write, save) => {
                    let contradiction = (id, Anomaly::ContradictingResult);
                    let contradicts = save.noticed.contains(&contradiction);
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
            self.rest(self.jittered(self.settings.first_pause)).await;
        }
        Err(RepoError::Unavailable("the lock kept changing".into()))
    }
}
