//! The end of an open write whose lock has reported no result: expiry and withdrawal.

use super::key_writes::{ClientTokens, KeyWrites};
use super::reconcile_shadow::ReconcileError;
use super::shadow_calls::reason_of;
use super::withdraw::WithdrawError;
use crate::model::{ShadowChange, ShadowVersion, Write, WriteId};
use crate::policy::{self, Termination};
use crate::ports::{RepoError, ShadowError};

impl KeyWrites {
    /// Ends an open write. It reads the shadow first: a result there settles the write instead. Otherwise it removes the entry
    /// on the version that it read, so that a result which arrives meanwhile is not lost, and records the end only after the
    /// shadow has accepted the removal. The caller bounds the time. The error is neither `Rejected` nor `Undecided`.
    pub(super) async fn terminate(
        &self,
        write: &Write,
        termination: &Termination,
    ) -> Result<Write, WithdrawError> {
        let (timer, deadline) = (
            &*self.ports.timer,
            self.deadline(self.settings.queue_timeout),
        );
        let _permit = self
            .lock_queues
            .acquire(write.lock, timer, deadline)
            .await
            .ok_or(WithdrawError::Busy)?;
        let mut tokens = self.tokens();
        let mut pause = self.settings.first_backoff;
        // Once the entry may have been removed, the only good answer is a recorded end.
        let mut may_be_removed = false;
        loop {
            match self.try_terminate(write, termination, &mut tokens).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(TerminateError::NotOpen(error)) => return Err(error),
                Err(TerminateError::RemovedOnly) => may_be_removed = true,
                // The removal was conditional: a conflict only means that the shadow has another version.
                Err(TerminateError::Failed(ReconcileError::Shadow(ShadowError::Conflict))) => {}
                Err(TerminateError::Failed(ReconcileError::Shadow(ShadowError::Unknown(_)))) => {
                    may_be_removed = true;
                }
                Err(TerminateError::Failed(_)) if may_be_removed => {}
                Err(TerminateError::Failed(ReconcileError::Store(error))) => {
                    return Err(error.into());
                }
                Err(TerminateError::Failed(ReconcileError::Shadow(error))) => {
                    return Err(WithdrawError::NotUpdated(reason_of(error)));
                }
            }
            self.sleep(self.jittered(pause)).await;
            pause = (pause * 2).min(self.settings.max_backoff);
        }
    }

    /// One attempt. `None`, try again: the lock has changed meanwhile, a result was settled, or the attempt only scheduled the check
    /// that restores the entry of an interrupted withdrawal.
    async fn try_terminate(
        &self,
        write: &Write,
        termination: &Termination,
        tokens: &mut ClientTokens,
    ) -> Result<Option<Write>, TerminateError> {
        let snapshot = self.ports.locks.load(write.lock).await?;
        let Some((snapshot, open)) = snapshot.and_then(|s| {
            let open = s.unfinished(write.id).filter(|w| w.is_open()).cloned();
            open.map(|open| (s, open))
        }) else {
            return Err(TerminateError::NotOpen(self.why_not_open(write.id).await?));
        };
        if matches!(termination, Termination::Withdrawn(_)) && !self.is_checked_soon(&open) {
            let now = self.ports.clock.now();
            let soon = now.after(self.settings.request_timeout);
            let save = policy::schedule_check(&snapshot, &open, Some(soon), None, now);
            self.ports.locks.save(save).await.or_else(ignore_stale)?;
            return Ok(None);
        }
        let Some(version) = self.remove_entry(&open, tokens).await? else {
            return Ok(None);
        };
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let (ended, save) = policy::terminate(&snapshot, &open, termination, version, limits, now);
        // The entry is removed. The caller retries until the store has recorded the end.
        match self.ports.locks.save(save).await {
            Ok(()) => Ok(Some(ended)),
            Err(_) => Err(TerminateError::RemovedOnly),
        }
    }

    /// Whether maintenance checks the write soon enough to restore the entry if this withdrawal is interrupted.
    fn is_checked_soon(&self, open: &Write) -> bool {
        let soon = self.ports.clock.now().after(self.settings.request_timeout);
        open.next_check_at.is_some_and(|at| at <= soon)
    }

    async fn why_not_open(&self, id: WriteId) -> Result<WithdrawError, RepoError> {
        Ok(match self.ports.history.write(id).await? {
            None => WithdrawError::NotFound,
            Some(write) if write.intent().is_some() => WithdrawError::Prepared,
            Some(write) if write.is_open() => WithdrawError::Busy,
            Some(write) => WithdrawError::AlreadyEnded(Box::new(write)),
        })
    }

    /// Removes the write's entry from the shadow and returns the new version. `None`: the shadow had a result, which settled
    /// the write.
    async fn remove_entry(
        &self,
        write: &Write,
        tokens: &mut ClientTokens,
    ) -> Result<Option<ShadowVersion>, ReconcileError> {
        let Some(found) = self.read_shadow(&write.thing, tokens).await? else {
            // A deleted shadow has no entry. Creating it makes earlier updates fail on its version.
            let create = ShadowChange::create(tokens.next());
            return Ok(Some(self.update_shadow(&write.thing, create).await?));
        };
        let version = found.version;
        let mut clear_results = Vec::new();
        if found.results.iter().any(|r| r.write == write.id) {
            self.settle_shadow(&write.thing, found).await?;
            if !matches!(self.ports.history.write(write.id).await?, Some(w) if w.is_open()) {
                return Ok(None);
            }
            // The result only says that the lock is executing the write. It is removed with the entry.
            clear_results.push(write.id);
        }
        let change = ShadowChange {
            remove: vec![write.id],
            clear_results,
            ..ShadowChange::fence(version, tokens.next())
        };
        Ok(Some(self.update_shadow(&write.thing, change).await?))
    }
}

fn ignore_stale(error: RepoError) -> Result<(), RepoError> {
    match error {
        RepoError::Stale => Ok(()),
        other => Err(other),
    }
}

/// Why one attempt did not end the write.
enum TerminateError {
    NotOpen(WithdrawError),
    /// The entry was removed from the shadow, and the end is not known to be recorded.
    RemovedOnly,
    Failed(ReconcileError),
}

impl<E: Into<ReconcileError>> From<E> for TerminateError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
