//! Worlds that are broken in one way each, which the simulation must find out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LockSnapshot, WorkerId, Write, *};
use keywright_domain::ports::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// Updates that put an entry are taken at any version.
    NoVersionInTheUpdate,
    /// A fence is said to be taken and never sent.
    NoFence,
    /// Some commits are answered and lost.
    HastyCommit,
    /// What is kept of named requests is lost.
    NothingKept,
    /// Whoever says that it does not know is believed to have done nothing.
    UnknownIsRefused,
    /// Every second save ignores that the lock has changed.
    NoCompareAndSet,
}

impl Broken {
    pub(crate) const ALL: [Self; 6] = [
        Self::NoVersionInTheUpdate,
        Self::NoFence,
        Self::HastyCommit,
        Self::NothingKept,
        Self::UnknownIsRefused,
        Self::NoCompareAndSet,
    ];

    /// The invariants of which one is found not to hold.
    pub(crate) const fn breaks(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::NoVersionInTheUpdate | Self::NoFence | Self::UnknownIsRefused => &["I2", "I5"],
            Self::HastyCommit => &["I1"],
            Self::NothingKept => &["I7"],
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
        let bare = change.put.is_none() && change.remove.is_empty();
        if self.broken == Broken::NoVersionInTheUpdate && change.put.is_some() {
            change.expected = None;
        }
        if let (Broken::NoFence, true, Some(version)) = (self.broken, bare, change.expected) {
            return Ok(version.next());
        }
        match self.inner.update(thing, change).await {
            Err(ShadowError::Unknown(detail)) if self.broken == Broken::UnknownIsRefused => {
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
    /// How many writes were taken over.
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
            Broken::HastyCommit if !save.events.is_empty() && one_in(10) => return Ok(()),
            Broken::NothingKept => save.idempotency = None,
            Broken::NoCompareAndSet if one_in(2) => {
                if let Some(known) = self.inner.load(save.lock).await? {
                    save.revision = known.revision;
                }
            }
            _ => {}
        }
        self.inner.save(save).await
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let claimed = self.inner.claim(owner, lease).await?;
        let taken = u64::from(claimed.is_some());
        self.claimed.fetch_add(taken, Ordering::Relaxed);
        Ok(claimed)
    }
}
