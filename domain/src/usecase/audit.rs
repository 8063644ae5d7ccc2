//! Audit of invariant I5: compares a lock's shadow with its writes, and repairs differences.

use std::time::Duration;

use super::key_writes::{ClientTokens, KeyWrites};
use super::reconcile_shadow::ReconcileError;
use crate::model::{
    LockId, LockSnapshot, Principal, ShadowChange, ShadowSnapshot, ThingName, Write, WriteId,
};
use crate::policy::{self, Finding, Rejection};
use crate::ports::{RepoError, ShadowError};

/// Result of the audit of one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// Differences that were still there a second later.
    pub findings: Vec<Finding>,
    /// Whether all findings were repaired.
    pub repaired: bool,
}

/// Why a lock was not audited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Rule 1 rejects the audit. Only audits for a principal have this error.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The shadow could not be read or updated.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
    /// The shadow changed between any two readings.
    #[error("the shadow kept changing; audit the lock again when fewer writes are in progress")]
    ShadowUnstable,
}

impl From<ReconcileError> for AuditError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Store(error) => error.into(),
            ReconcileError::Shadow(error) => error.into(),
        }
    }
}

/// How often a shadow that changes during the audit is read.
const MAX_ATTEMPTS: usize = 8;

/// How long after the first reading a difference is checked again. Settling a report and recording a removal take less.
const RECHECK_DELAY: Duration = Duration::from_secs(1);

impl KeyWrites {
    /// Compares one lock's shadow with its writes. With `repair` it removes unknown entries and stray results, conditionally on
    /// the version that it read; restores lost entries; and settles results that were not recorded. An unknown lock and a lock
    /// without a thing have no findings. It can run beside servers.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self, lock: LockId, repair: bool) -> Result<AuditReport, AuditError> {
        let snapshot = self.ports.locks.load(lock).await?;
        let Some(thing) = snapshot.and_then(|s| s.lock.thing) else {
            return Ok(AuditReport::default());
        };
        let (mut tokens, mut before) = (self.tokens(), None);
        for _ in 0..MAX_ATTEMPTS {
            let shadow = self.read_shadow(&thing, &mut tokens).await?;
            let Some(snapshot) = self.ports.locks.load(lock).await? else {
                return Ok(AuditReport::default());
            };
            let others = self.other_writes(shadow.as_ref(), &snapshot).await?;
            let findings = policy::audit(shadow.as_ref(), &snapshot, &others);
            // A difference that only an operation in progress explains is gone at the second reading.
            let seen = Some((shadow.as_ref().map(|s| s.version), findings.clone()));
            let is_consistent = findings.is_empty();
            if !is_consistent && seen != before {
                before = seen;
                self.sleep(RECHECK_DELAY).await;
                continue;
            }
            if is_consistent || !repair {
                return Ok(AuditReport {
                    findings,
                    repaired: is_consistent,
                });
            }
            match self.repair(&thing, shadow, &findings, &mut tokens).await {
                Ok(()) => {
                    return Ok(AuditReport {
                        findings,
                        repaired: true,
                    });
                }
                Err(
                    ReconcileError::Shadow(ShadowError::Conflict)
                    | ReconcileError::Store(RepoError::Stale),
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AuditError::ShadowUnstable)
    }

    /// As [`audit`](Self::audit), for a principal, who has to have access to the lock, and with `repair` be permitted to withdraw its
    /// writes.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit_as(
        &self,
        lock: LockId,
        principal: &Principal,
        repair: bool,
    ) -> Result<AuditReport, AuditError> {
        let known = self.ports.locks.load(lock).await?;
        match repair {
            true => policy::authorize_withdrawal(known, principal, &*self.access)?,
            false => policy::authorize(known, principal, &*self.access)?,
        };
        self.audit(lock, repair).await
    }

    /// The writes that the shadow names and the lock no longer has as unfinished. They are read last.
    async fn other_writes(
        &self,
        shadow: Option<&ShadowSnapshot>,
        snapshot: &LockSnapshot,
    ) -> Result<Vec<Write>, RepoError> {
        let results = shadow.iter().flat_map(|s| &s.results).map(|r| r.write);
        let entries = shadow.iter().flat_map(|s| &s.entries).copied();
        let mut others = Vec::new();
        for id in entries.chain(results) {
            if snapshot.unfinished(id).is_none() {
                others.extend(self.ports.history.write(id).await?);
            }
        }
        Ok(others)
    }

    async fn repair(
        &self,
        thing: &ThingName,
        shadow: Option<ShadowSnapshot>,
        findings: &[Finding],
        tokens: &mut ClientTokens,
    ) -> Result<(), ReconcileError> {
        let (mut remove, mut clear_results, mut unheard) = (Vec::new(), Vec::new(), false);
        let mut lost: Vec<WriteId> = Vec::new();
        for finding in findings {
            match finding {
                Finding::UnknownEntry(id) => remove.push(*id),
                Finding::StrayResult(id) => clear_results.push(*id),
                Finding::UnheardResult(_) => unheard = true,
                Finding::LostEntry(id) => lost.push(*id),
            }
        }
        if let Some(shadow) = shadow {
            let version = shadow.version;
            if unheard {
                self.settle_shadow(thing, shadow).await?;
            }
            if !remove.is_empty() || !clear_results.is_empty() {
                let change = ShadowChange {
                    remove,
                    clear_results,
                    ..ShadowChange::fence(version, tokens.next())
                };
                self.update_shadow(thing, change).await?;
            }
        }
        for id in lost {
            if let Some(write) = self.ports.history.write(id).await?
                && write.is_open()
            {
                self.reconcile(&write).await?;
            }
        }
        Ok(())
    }
}
