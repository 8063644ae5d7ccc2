//! Maintenance of writes: several locks at once, but the writes of one lock one after another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_domain::model::{DueCursor, LockId, Write};
use keywright_domain::ports::RepoError;
use keywright_domain::{KeyWrites, MaintenanceOutcome};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::warn;

use super::audit::log_findings;
use crate::metrics::Metrics;
use crate::mutex::lock_mutex;

/// How often due writes are looked for, and the first pause before shadows that could not be read are read again.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest pause before shadows that could not be read are read again.
const MAX_RECONCILE_PAUSE: Duration = Duration::from_secs(30);

/// How many locks are maintained at once.
const MAINTAINED_LOCKS: usize = 16;

/// The interval between two writes: 200 a second. AWS IoT accepts 400 requests a second from an account in a small region, and
/// new writes need some of them.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);

/// How many due writes one page of the store has.
const PAGE: usize = 256;

/// Maintains the writes that are due, every second. A lock whose shadow does not answer delays no other lock.
pub(super) async fn maintain(scheduler: Arc<MaintenanceScheduler>, reconcile: Arc<Notify>) {
    let mut contradictions = 0;
    loop {
        if scheduler.writes.clock_was_set_back() {
            warn!("the clock was set back; all open writes are reconciled");
            reconcile.notify_one();
        }
        match scheduler.start_pass(false).await {
            // The next pass skips locks that are still being maintained.
            Ok(mut tasks) => tasks.detach_all(),
            Err(error) => warn!(%error, "due writes could not be listed"),
        }
        let count = scheduler.writes.contradictions();
        if count > contradictions {
            warn!(count, "contradictions up to now");
            contradictions = count;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Reads the shadows of all open writes whenever `reconcile` is notified, until each of them has been read.
pub(super) async fn reconcile_all(scheduler: Arc<MaintenanceScheduler>, reconcile: Arc<Notify>) {
    loop {
        reconcile.notified().await;
        let mut pause = PERIOD;
        let mut tasks = loop {
            match scheduler.start_pass(true).await {
                Ok(tasks) => break tasks,
                Err(error) => warn!(%error, "open writes could not be listed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RECONCILE_PAUSE);
        };
        loop {
            let mut failed = Vec::new();
            while let Some(outcome) = tasks.join_next().await {
                failed.extend(outcome.unwrap_or_default());
            }
            if failed.is_empty() {
                break;
            }
            warn!(
                failed = failed.len(),
                "shadows could not be read; reports may be missing; trying again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RECONCILE_PAUSE);
            scheduler.start_all(failed, &mut tasks).await;
        }
    }
}

/// Starts the maintenance of writes within the limits above.
pub(super) struct MaintenanceScheduler {
    writes: Arc<KeyWrites>,
    permits: Arc<Semaphore>,
    busy: Arc<Mutex<HashSet<LockId>>>,
    rate: Arc<AsyncMutex<Interval>>,
    metrics: Arc<Metrics>,
}

impl MaintenanceScheduler {
    pub(super) fn new(writes: Arc<KeyWrites>, metrics: Arc<Metrics>) -> Self {
        let mut rate = tokio::time::interval(WRITE_INTERVAL);
        rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            writes,
            permits: Arc::new(Semaphore::new(MAINTAINED_LOCKS)),
            busy: Arc::default(),
            rate: Arc::new(AsyncMutex::new(rate)),
            metrics,
        }
    }

    /// Starts the maintenance of all writes that are due or, with `all`, of all writes that are not finished with. Each task
    /// returns the writes that need another attempt.
    async fn start_pass(&self, all: bool) -> Result<JoinSet<Vec<Write>>, RepoError> {
        let (mut tasks, mut seen, mut after) = (JoinSet::new(), HashSet::new(), None);
        loop {
            let mut page = match all {
                true => self.writes.scheduled_writes(after, PAGE).await?,
                false => self.writes.due_writes(after, PAGE).await?,
            };
            let is_last = page.len() < PAGE;
            after = page.last().and_then(DueCursor::of);
            // A write that was maintained during this pass may be on a later page again.
            page.retain(|write| seen.insert(write.id));
            self.start_all(page, &mut tasks).await;
            if is_last || after.is_none() {
                return Ok(tasks);
            }
        }
    }

    async fn start_all(&self, writes: Vec<Write>, tasks: &mut JoinSet<Vec<Write>>) {
        let mut by_lock: HashMap<LockId, Vec<Write>> = HashMap::new();
        for write in writes {
            by_lock.entry(write.lock).or_default().push(write);
        }
        for (lock, writes) in by_lock {
            self.start(lock, writes, tasks).await;
        }
    }

    async fn start(&self, lock: LockId, due: Vec<Write>, tasks: &mut JoinSet<Vec<Write>>) {
        let Some(busy) = BusyLock::mark(lock, &self.busy) else {
            tasks.spawn(async move { due });
            return;
        };
        // The semaphore is never closed.
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            return;
        };
        let (writes, rate) = (self.writes.clone(), self.rate.clone());
        let metrics = self.metrics.clone();
        tasks.spawn(async move {
            let (_busy, _permit) = (busy, permit);
            let mut failed = Vec::new();
            for write in due {
                rate.lock().await.tick().await;
                match writes.maintain_write(&write).await {
                    MaintenanceOutcome::Done => {}
                    MaintenanceOutcome::Repaired(report) => {
                        metrics.audited(&report);
                        log_findings(lock, &report);
                    }
                    MaintenanceOutcome::Failed => failed.push(write),
                }
            }
            failed
        });
    }
}

/// Marks a lock as being maintained until it is dropped.
struct BusyLock {
    lock: LockId,
    all: Arc<Mutex<HashSet<LockId>>>,
}

impl BusyLock {
    /// `None`: the lock is marked already.
    fn mark(lock: LockId, all: &Arc<Mutex<HashSet<LockId>>>) -> Option<Self> {
        let is_new = lock_mutex(all).insert(lock);
        is_new.then(|| Self {
            lock,
            all: all.clone(),
        })
    }
}

impl Drop for BusyLock {
    fn drop(&mut self) {
        lock_mutex(&self.all).remove(&self.lock);
    }
}
