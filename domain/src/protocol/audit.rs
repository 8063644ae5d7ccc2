//! The audit of I5: the shadow first, the store second, and what differs put right.

use std::time::Duration;

use super::maintain::AttendError;
use super::{KeyWrites, Tokens};
use crate::lock::LockSnapshot;
use crate::ports::{RepoError, ShadowChange, ShadowError, ShadowSnapshot};
use crate::rules::{self, Finding};
use crate::values::{LockId, ThingName, WriteId};
use crate::write::Write;

/// What an audit of one lock came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// What differed, and still did a second later.
    pub findings: Vec<Finding>,
    /// Whether all of it was put right.
    pub repaired: bool,
}

/// Why a lock was not audited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The shadow could not be read or updated.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
    /// The shadow changed each time that it was looked at.
    #[error("the shadow kept changing; ask again when the lock has less to do")]
    Restless,
}

impl From<AttendError> for AuditError {
    fn from(error: AttendError) -> Self {
        match error {
            AttendError::Store(error) => error.into(),
            AttendError::Shadow(error) => error.into(),
        }
    }
}

/// How often a lock is looked at whose shadow changes meanwhile.
const MOST_TRIES: usize = 8;

/// After how long what differs is looked at again. A report is settled, and a removal recorded, in less.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl KeyWrites {
    /// Compares one lock's shadow with its writes, and with `repair` puts right what differs: unknown entries and stray
    /// results are taken off, conditionally on what was read; lost entries are put back; results that nobody has
    /// heard are settled. A lock that is unknown or has no thing has nothing to differ. It is safe beside servers
    /// that run.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self, lock: LockId, repair: bool) -> Result<Audited, AuditError> {
        let Some(thing) = self
            .ports
            .locks
            .load(lock)
            .await?
            .and_then(|s| s.lock.thing)
        else {
            return Ok(Audited::default());
        };
        let (mut tokens, mut before) = (self.tokens(), None);
        for _ in 0..MOST_TRIES {
            let shadow = self.read_shadow(&thing, &mut tokens).await?;
            let Some(snapshot) = self.ports.locks.load(lock).await? else {
                return Ok(Audited::default());
            };
            let others = self.others(shadow.as_ref(), &snapshot).await?;
            let findings = rules::audit(shadow.as_ref(), &snapshot, &others);
            if findings.is_empty() {
                return Ok(Audited {
                    findings,
                    repaired: true,
                });
            }
            // What differs only because it is on its way does so no longer when it is looked at again.
            let seen = Some((shadow.as_ref().map(|s| s.version), findings.clone()));
            if seen != before {
                before = seen;
                self.rest(SECOND_LOOK).await;
                continue;
            }
            if !repair {
                return Ok(Audited {
                    findings,
                    repaired: false,
                });
            }
            match self.put_right(&thing, shadow, &findings, &mut tokens).await {
                Ok(()) => {
                    return Ok(Audited {
                        findings,
                        repaired: true,
                    });
                }
                Err(
                    AttendError::Shadow(ShadowError::Conflict)
                    | AttendError::Store(RepoError::Stale),
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AuditError::Restless)
    }

    /// What the history has of writes that the shadow names and the lock does not. It is read last.
    async fn others(
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

    async fn put_right(
        &self,
        thing: &ThingName,
        shadow: Option<ShadowSnapshot>,
        findings: &[Finding],
        tokens: &mut Tokens,
    ) -> Result<(), AttendError> {
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
                self.settle_from(thing, shadow).await?;
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
                self.look(&write).await?;
            }
        }
        Ok(())
    }
}
