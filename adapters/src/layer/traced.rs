//! What goes through a port, in the log. Neither keys nor credentials are in it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::lock::LockSnapshot;
use keywright_domain::ports::{
    LockRepo, RepoError, Save, ShadowChange, ShadowError, ShadowPort, ShadowSnapshot,
};
use keywright_domain::values::{ClientToken, KeyIndex, LockId, ShadowVersion, ThingName};
use keywright_domain::write::{Owner, Write, WriteState};
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Logs the calls of a port: the life of each write at the level of information, single calls for those
/// who look for a fault, failures as warnings.
#[derive(Clone)]
pub struct Traced<P: ?Sized>(Arc<P>);

impl<P: ?Sized> Traced<P> {
    /// Logs what `inner` is asked and answers.
    pub const fn new(inner: Arc<P>) -> Self {
        Self(inner)
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ShadowPort for Traced<dyn ShadowPort> {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let (start, token) = (Instant::now(), change.token.clone());
        let expected = change.expected.map(|v| v.0);
        let answer = self.0.update(thing, change).await;
        let (token, micros) = (token.as_str(), since(start));
        match &answer {
            Ok(version) => debug!(%thing, token, expected, %version, micros, "shadow updated"),
            Err(ShadowError::Conflict) => {
                debug!(%thing, token, expected, micros, "shadow has moved on");
            }
            Err(error) => warn!(%thing, token, expected, %error, micros, "shadow not updated"),
        }
        answer
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let start = Instant::now();
        let answer = self.0.read(thing, token).await;
        let micros = since(start);
        match &answer {
            Ok(found) => {
                let version = found.as_ref().map(|f| f.version.0);
                debug!(%thing, version, micros, "shadow read");
            }
            Err(error) => warn!(%thing, %error, micros, "shadow not read"),
        }
        answer
    }
}

#[async_trait]
impl LockRepo for Traced<dyn LockRepo> {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let answer = self.0.load(lock).await;
        if let Err(error) = &answer {
            warn!(%lock, %error, "lock not loaded");
        }
        answer
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let (start, lock, writes) = (Instant::now(), save.lock, save.writes.clone());
        let answer = self.0.save(save).await;
        let micros = since(start);
        match &answer {
            Ok(()) => writes.iter().for_each(log_step),
            Err(RepoError::Stale) => debug!(%lock, micros, "lock has changed, deciding again"),
            Err(error) => warn!(%lock, %error, micros, "lock not saved"),
        }
        answer
    }

    async fn claim(&self, owner: Owner, lease: Duration) -> Result<Option<Write>, RepoError> {
        let answer = self.0.claim(owner, lease).await;
        match &answer {
            Ok(Some(write)) => {
                let (lock, write) = (write.lock, write.id);
                info!(%lock, %write, "taken over, its outcome is not known");
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "unfinished writes could not be claimed"),
        }
        answer
    }
}

/// One line for each step of a write's life. A settled write whose result was cleared is no step.
fn log_step(write: &Write) {
    let step = write.state.name();
    let (lock, id, index) = (write.lock, write.id, write.slot.index.map(KeyIndex::get));
    let late = write.is_late().then_some(true);
    let version = write.requested.map(|r| r.version.0);
    match &write.state {
        WriteState::Prepared(_) => {
            info!(%lock, write = %id, index, by = write.requested_by, "{step}");
        }
        WriteState::Sent => info!(%lock, write = %id, version, "{step}"),
        WriteState::Aborted { reason, .. } => info!(%lock, write = %id, %reason, "{step}"),
        _ if write.settled_at().is_some() && write.attention.is_none() => {
            debug!(%lock, write = %id, "nothing of it is left on the shadow");
        }
        WriteState::Failed(reason, _) => {
            info!(%lock, write = %id, %reason, late, "{step}");
        }
        _ => info!(%lock, write = %id, late, "{step}"),
    }
}
