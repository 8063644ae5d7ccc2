//! What goes through a port, in the log. Neither keys nor credentials are in it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, KeyIndex, LockEvent, LockId, LockSnapshot, RecordedEvent, Save, ShadowChange,
    ShadowSnapshot, ShadowVersion, ThingName, WorkerId, Write, WriteId, WriteState,
};
use keywright_domain::ports::{LockRepo, RepoError, ShadowError, ShadowPort};
use tokio::time::Instant;
use tracing::{Level, debug, enabled, info, warn};

/// Logs what a shadow is asked and answers: failures as warnings, the rest for those who look for a fault.
#[derive(Clone)]
pub struct TracedShadow(Arc<dyn ShadowPort>);

impl TracedShadow {
    /// Logs the calls of `inner`.
    pub const fn new(inner: Arc<dyn ShadowPort>) -> Self {
        Self(inner)
    }
}

/// Logs the life of each write, one line a step, and what goes wrong with the store.
#[derive(Clone)]
pub struct TracedLockRepo {
    inner: Arc<dyn LockRepo>,
    /// Writes whose lock is at it, which has been logged.
    in_progress: Arc<Mutex<HashSet<WriteId>>>,
}

/// How many of those are remembered; beyond that, a step may be logged twice.
const MAX_IN_PROGRESS: usize = 64 * 1024;

impl TracedLockRepo {
    /// Logs what is saved in `inner`.
    pub fn new(inner: Arc<dyn LockRepo>) -> Self {
        Self {
            inner,
            in_progress: Arc::default(),
        }
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ShadowPort for TracedShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let (start, token) = (Instant::now(), change.token.clone());
        let expected = change.expected.map(|v| v.0);
        let waiting = Waiting(Some((thing, "update")));
        let answer = self.0.update(thing, change).await;
        waiting.answered();
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
        let waiting = Waiting(Some((thing, "reading")));
        let answer = self.0.read(thing, token).await;
        waiting.answered();
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
impl LockRepo for TracedLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let answer = self.inner.load(lock).await;
        if let Err(error) = &answer {
            warn!(%lock, %error, "lock not loaded");
        }
        answer
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let (start, lock) = (Instant::now(), save.lock);
        let steps = enabled!(Level::INFO).then(|| (save.events.clone(), save.writes.clone()));
        let new_anomalies = save.new_anomalies.clone();
        let answer = self.inner.save(save).await;
        let micros = since(start);
        match &answer {
            Ok(()) => {
                if let Some((events, writes)) = steps {
                    self.log_steps(&events, &writes);
                }
                for (write, anomaly) in new_anomalies {
                    let anomaly = anomaly.name();
                    warn!(%lock, %write, anomaly, "the lock's answer breaks the device contract");
                }
            }
            Err(RepoError::Stale) => debug!(%lock, micros, "lock has changed, deciding again"),
            Err(error) => warn!(%lock, %error, micros, "lock not saved"),
        }
        answer
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let answer = self.inner.claim(owner, lease).await;
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

impl TracedLockRepo {
    /// One line for each step of a write's life, with its event where it has one. Other saves of a write (its
    /// result was cleared, its shadow was looked at) are no steps.
    fn log_steps(&self, events: &[RecordedEvent], writes: &[Write]) {
        for write in writes {
            let (lock, id, step) = (write.lock, write.id, write.state.name());
            let index = write.slot.index.map(KeyIndex::get);
            let mut own = events.iter().filter(|e| e.write == Some(id)).peekable();
            let eventful = own.peek().is_some();
            for recorded in own {
                let (event, version) = (recorded.event.name(), recorded.version.0);
                match &recorded.event {
                    LockEvent::KeyWriteRequested(_) => {
                        info!(%lock, write = %id, version, event, "SENT");
                    }
                    LockEvent::KeyWriteFailed { reason, late, .. } => {
                        info!(%lock, write = %id, version, event, %reason, late, "{step}");
                    }
                    LockEvent::KeyWriteConfirmed { late, .. } => {
                        info!(%lock, write = %id, version, event, late, "{step}");
                    }
                    _ => info!(%lock, write = %id, version, event, "{step}"),
                }
            }
            match &write.state {
                WriteState::Prepared(_) => {
                    info!(%lock, write = %id, index, by = write.requested_by, "{step}");
                }
                WriteState::Aborted { reason, .. } => info!(%lock, write = %id, %reason, "{step}"),
                WriteState::InProgress if self.begins(id) => info!(%lock, write = %id, "{step}"),
                _ if eventful => self.ends(id),
                _ => debug!(%lock, write = %id, step, "looked after"),
            }
        }
    }

    fn begins(&self, id: WriteId) -> bool {
        let mut in_progress = self.in_progress();
        if in_progress.len() >= MAX_IN_PROGRESS {
            in_progress.clear();
        }
        in_progress.insert(id)
    }

    fn ends(&self, id: WriteId) {
        self.in_progress().remove(&id);
    }

    fn in_progress(&self) -> MutexGuard<'_, HashSet<WriteId>> {
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way. One that is given up leaves a line, too.
struct Waiting<'a>(Option<(&'a ThingName, &'static str)>);

impl Waiting<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((thing, call)) = self.0 {
            warn!(%thing, call, "the shadow did not answer in time; the call was given up");
        }
    }
}
