//! Ports that are broken on purpose. The test of a crash point must fail with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::Ports;
use keywright_domain::model::{LockSnapshot, WorkerId, Write, *};
use keywright_domain::ports::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The process updates the shadow before it prepares the write.
    SendsFirst,
    /// No intent is ever claimed.
    NoRecovery,
    /// After one claim, no intent is claimed any more.
    RecoversOnce,
    /// Updates that put an entry are unconditional.
    AnyVersion,
    /// Reads of the shadow return no entries.
    BlindReads,
    /// Saves are applied at any revision.
    StaleSaves,
    /// A save with events is answered and not made.
    LostCommit,
    /// A save with events leaves the writes as they were.
    TornCommit,
}

impl Broken {
    /// The ports of all processes.
    pub(crate) fn all_processes(self, ports: &Ports) -> Ports {
        match self {
            Self::SendsFirst => ports.clone(),
            _ => self.around(ports),
        }
    }

    /// The ports of the process that stops.
    pub(crate) fn stopping_process(self, ports: &Ports) -> Ports {
        match self {
            Self::SendsFirst => self.around(ports),
            _ => ports.clone(),
        }
    }

    fn around(self, ports: &Ports) -> Ports {
        Ports {
            locks: Arc::new(BrokenStore {
                broken: self,
                locks: ports.locks.clone(),
                shadow: ports.shadow.clone(),
                claimed: AtomicBool::new(false),
            }),
            shadow: Arc::new(BrokenShadow {
                broken: self,
                inner: ports.shadow.clone(),
            }),
            ..ports.clone()
        }
    }
}

struct BrokenStore {
    broken: Broken,
    locks: Arc<dyn LockRepo>,
    shadow: Arc<dyn ShadowPort>,
    claimed: AtomicBool,
}

#[async_trait]
impl LockRepo for BrokenStore {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.locks.load(lock).await
    }

    async fn save(&self, mut save: Save) -> Result<(), RepoError> {
        let commits = !save.events.is_empty();
        match self.broken {
            Broken::SendsFirst => {
                for write in save.writes.iter().filter(|w| w.intent().is_some()) {
                    let put = ShadowChange {
                        put: Some(ShadowEntry::from(write)),
                        ..ShadowChange::create(ClientToken::new(write.id, Epoch(0), 99))
                    };
                    let _ = self.shadow.update(&write.thing, put).await;
                }
            }
            Broken::LostCommit if commits => return Ok(()),
            Broken::TornCommit if commits => save.writes.clear(),
            Broken::StaleSaves => {
                if let Some(known) = self.locks.load(save.lock).await? {
                    save.revision = known.revision;
                }
            }
            _ => {}
        }
        self.locks.save(save).await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        match self.broken {
            Broken::NoRecovery => Ok(None),
            Broken::RecoversOnce if self.claimed.load(Ordering::Relaxed) => Ok(None),
            _ => {
                let claimed = self.locks.claim(worker, lease).await?;
                self.claimed.fetch_or(claimed.is_some(), Ordering::Relaxed);
                Ok(claimed)
            }
        }
    }
}

struct BrokenShadow {
    broken: Broken,
    inner: Arc<dyn ShadowPort>,
}

#[async_trait]
impl ShadowPort for BrokenShadow {
    async fn update(
        &self,
        thing: &ThingName,
        mut change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        if self.broken == Broken::AnyVersion && change.put.is_some() {
            change.expected = None;
        }
        self.inner.update(thing, change).await
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let found = self.inner.read(thing, token).await?;
        Ok(found.map(|mut shadow| {
            if self.broken == Broken::BlindReads {
                shadow.entries.clear();
            }
            shadow
        }))
    }
}
