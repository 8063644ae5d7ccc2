//! Maintenance of writes that no request is about: reading their shadows, expiring them, clearing their results.

use std::pin::pin;
use std::time::Duration;

use super::audit::AuditReport;
use super::deadline::bounded;
use super::key_writes::KeyWrites;
use super::reconcile_shadow::Reconciled;
use super::withdraw::WithdrawError;
use crate::model::{Backlog, DueCursor, LoggedEvent, Position, Timestamp, Write, WriteId};
use crate::policy::Termination;
use crate::ports::RepoError;

/// Result of the maintenance of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaintenanceOutcome {
    /// Nothing is left to do now.
    Done,
    /// Nothing is left to do for the write. Its shadow differed from the writes of the lock, and an audit repaired that.
    Repaired(AuditReport),
    /// The shadow or the store failed. The write stays due.
    Failed,
}

impl KeyWrites {
    /// At most `limit` writes that have a next check, whenever it is. Run [`KeyWrites::maintain_write`] for all of them, page by page, at
    /// start-up and whenever reports may have been missed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn scheduled_writes(
        &self,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        self.ports.history.due(Timestamp::MAX, after, limit).await
    }

    /// At most `limit` writes to maintain now, each with [`KeyWrites::maintain_write`]. Ask every second. These are writes whose next
    /// check is due, or is later than any rule schedules it because a clock was ahead.
    ///
    /// # Errors
    /// The store failed.
    pub async fn due_writes(
        &self,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let history = &self.ports.history;
        let now = self.ports.clock.now();
        let mut due = history.due(now, after, limit).await?;
        let room = limit - due.len();
        if room > 0 {
            // No rule schedules a check later than this. A later one was scheduled by a clock that was ahead.
            let latest = DueCursor {
                at: now.after(self.longest_interval()),
                id: WriteId::from_u128(u128::MAX),
            };
            due.extend(
                history
                    .due(Timestamp::MAX, after.max(Some(latest)), room)
                    .await?,
            );
        }
        Ok(due)
    }

    /// The longest time until a next check that maintenance schedules, with a margin for clocks that differ.
    fn longest_interval(&self) -> Duration {
        let limits = &self.settings.limits;
        let longest = limits.time_to_live.max(limits.clear_within);
        longest.max(self.settings.request_timeout) + limits.confirm_within
    }

    /// Maintains one write: an open write past its time to live expires; for any other open write, its shadow is read; the result of
    /// a settled write is cleared; a write that ended without a result of its lock gets its final check. It ends within
    /// [`super::Settings::request_timeout`].
    pub async fn maintain_write(&self, write: &Write) -> MaintenanceOutcome {
        let deadline = self.deadline(self.settings.request_timeout);
        let maintaining = async {
            match self.check(write).await {
                Some(Reconciled::Consistent) => MaintenanceOutcome::Done,
                Some(Reconciled::UnknownEntries) => match self.audit(write.lock, true).await {
                    Ok(report) if report.findings.is_empty() => MaintenanceOutcome::Done,
                    Ok(report) => MaintenanceOutcome::Repaired(report),
                    Err(_) => MaintenanceOutcome::Failed,
                },
                None => MaintenanceOutcome::Failed,
            }
        };
        let outcome = bounded(&*self.ports.timer, deadline, pin!(maintaining)).await;
        outcome.unwrap_or(MaintenanceOutcome::Failed)
    }

    /// How much work is unfinished now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn backlog(&self) -> Result<Backlog, RepoError> {
        let (now, span) = (self.ports.clock.now(), self.settings.limits.confirm_within);
        let recent_times = now.before(span)..=now.after(span);
        self.ports.history.backlog(recent_times).await
    }

    /// Reads at most `limit` events of all locks after this position, in the order of their positions, for a service that passes all events
    /// on. It takes no principal, so do not show the result to clients.
    ///
    /// # Errors
    /// The store failed.
    pub async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        self.ports.history.events_after(after, limit).await
    }

    /// `None`: the store or the shadow failed.
    async fn check(&self, write: &Write) -> Option<Reconciled> {
        if write.has_uncleared_result() {
            self.clear_results(write).await.ok()?;
        } else if !write.is_open() {
            self.final_check(write).await.ok()?;
        } else if self.ports.clock.now() < write.expires_at {
            return self.reconcile(write).await.ok();
        } else {
            match self.terminate(write, &Termination::Expired).await {
                Ok(_) | Err(WithdrawError::AlreadyEnded(_)) => {}
                Err(_) => return None,
            }
        }
        Some(Reconciled::Consistent)
    }
}
