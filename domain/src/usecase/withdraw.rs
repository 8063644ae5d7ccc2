//! Withdrawal of an open write.

use std::pin::pin;

use super::deadline::bounded;
use super::key_writes::KeyWrites;
use super::read::ReadError;
use super::write_key::RequestOptions;
use crate::model::{Cause, FailureReason, LockId, Principal, Write, WriteId, WriteState};
use crate::policy::{self, Rejection, Termination};
use crate::ports::RepoError;

/// Why a write was not withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawError {
    /// Rule 1 rejects the request. Nothing happened.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The lock has no such write.
    #[error("the write does not exist")]
    NotFound,
    /// Other writes of the lock are in progress. Nothing happened.
    #[error("other writes of the lock are in progress")]
    Busy,
    /// The write is prepared, and it is not known yet whether the shadow has it. Nothing happened.
    #[error("the outcome of the write itself is not known yet")]
    Prepared,
    /// The write has ended already; here it is.
    #[error("the write has ended")]
    AlreadyEnded(Box<Write>),
    /// The shadow refused the update. Nothing is recorded.
    #[error("the shadow could not be updated: {0}")]
    NotUpdated(FailureReason),
    /// The deadline passed before the outcome was known. The write stays open, and the request can safely be repeated.
    #[error("the outcome is not known yet")]
    Undecided,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
}

impl From<ReadError> for WithdrawError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => Self::Rejected(rejection),
            ReadError::WriteNotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

impl KeyWrites {
    /// Withdraws an open write of the lock: removes its entry from the shadow, then records WITHDRAWN. A write that was withdrawn
    /// before is returned as it is. A lock that is executing the write may still finish it; its report is then recorded as late.
    ///
    /// See [`AccessPolicy::may_withdraw`](policy::AccessPolicy::may_withdraw) for who may. An idempotency key in the options has no effect, because repeating a
    /// withdrawal is safe.
    ///
    /// # Errors
    /// See [`WithdrawError`].
    pub async fn withdraw(
        &self,
        lock: LockId,
        id: WriteId,
        principal: &Principal,
        options: RequestOptions,
    ) -> Result<Write, WithdrawError> {
        let deadline = self.request_deadline(options.deadline);
        let timer = &*self.ports.timer;
        let reading = async {
            let known = self.ports.locks.load(lock).await?;
            let snapshot = policy::authorize_withdrawal(known, principal, &*self.access)?;
            self.write_of(&snapshot, id).await
        };
        let found = bounded(timer, deadline, pin!(reading)).await;
        let no_answer = || ReadError::Store(RepoError::Unavailable("no answer in time".into()));
        let found = found.unwrap_or_else(|| Err(no_answer()))?;
        let cause = Cause::new(principal, options.request_id);
        let termination = Termination::Withdrawn(cause);
        let terminating = self.terminate(&found, &termination);
        match bounded(timer, deadline, pin!(terminating)).await {
            Some(Err(WithdrawError::AlreadyEnded(write)))
                if matches!(write.state, WriteState::Withdrawn { .. }) =>
            {
                Ok(*write)
            }
            ended => ended.unwrap_or(Err(WithdrawError::Undecided)),
        }
    }
}
