//! Ports that are broken in one way each. The simulation must find an invariant that they violate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LockSnapshot, WorkerId, Write, *};
use keywright_domain::ports::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// Updates that put an entry are unconditional.
    UnconditionalUpdate,
    /// Fences are answered as accepted and not sent.
    NoFence,
    /// Some saves with events are answered and not made.
    LostCommit,
    /// Idempotency records are not stored.
    NoIdempotencyRecords,
    /// An unknown outcome of an update is returned as not applied.
    UnknownAsNotApplied,
    /// Every second save is applied at any revision.
    NoCompareAndSet,
}

impl Broken {
    pub(crate) const ALL: [Self; 6] = [
        Self::UnconditionalUpdate,
        Self::NoFence,
        Self::LostCommit,
        Self::NoIdempotencyRecords,
        Self::UnknownAsNotApplied,
        Self::NoCompareAndSet,
    ];

    /// Invariants, of which the simulation finds at least one violated.
    pub(crate) const fn violates(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::UnconditionalUpdate | Self::NoFence | Self::UnknownAsNotApplied => &["I2", "I5"],
            Self::LostCommit => &["I1"],
            Self::NoIdempotencyRecords => &["I7"],
            Self::NoCompareAndSet => &["I1", "I2", "I4", "I5", "I6"],
        }
    }
}

pub(crate) struct BrokenShadow {
    pub(crate) inner: Arc<dyn ShadowPort>,
    pub(crate) broken: Broken,
}

#[async_trait]
impl ShadowPort for BrokenShadow {
    async fn update(
        &self,
        thing: &ThingName,
        mut change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let is_fence = change.put.is_none() && change.remove.is_empty();
        if self.broken == Broken::UnconditionalUpdate && change.put.is_some() {
            change.expected = None;
        }
        if let (Broken::NoFence, true, Some(version)) = (self.broken, is_fence, change.expected) {
            return Ok(version.next());
        }
        match self.inner.update(thing, change).await {
            Err(ShadowError::Unknown(detail)) if self.broken == Broken::UnknownAsNotApplied => {
                Err(ShadowError::NotApplied {
                    reason: keywright_domain::model::FailureReason::Unavailable,
                    detail,
                })
            }
            answer => answer,
        }
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.inner.read(thing, token).await
    }
}

pub(crate) struct BrokenStore {
    pub(crate) inner: Arc<dyn LockRepo>,
    pub(crate) broken: Broken,
    pub(crate) random: Mutex<fastrand::Rng>,
    /// The number of take-overs.
    pub(crate) claimed: Arc<AtomicU64>,
}

#[async_trait]
impl LockRepo for BrokenStore {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.inner.load(lock).await
    }

    async fn save(&self, mut save: Save) -> Result<(), RepoError> {
        let one_in = |n| self.random.lock().expect("no panic").u8(0..n) == 0;
        match self.broken {
            Broken::LostCommit if !save.events.is_empty() && one_in(10) => return Ok(()),
            Broken::NoIdempotencyRecords => save.idempotency = None,
            Broken::NoCompareAndSet if one_in(2) => {
                if let Some(known) = self.inner.load(save.lock).await? {
                    save.revision = known.revision;
                }
            }
            _ => {}
        }
        self.inner.save(save).await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let claimed = self.inner.claim(worker, lease).await?;
        let taken = u64::from(claimed.is_some());
        self.claimed.fetch_add(taken, Ordering::Relaxed);
        Ok(claimed)
    }
}
