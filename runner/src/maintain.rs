//! Maintenance of writes: several locks at once, but the writes of one lock one after another.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keywright_domain::MaintenanceOutcome;
use keywright_domain::model::{DueCursor, LockId, Tick, Write};
use keywright_domain::ports::RepoError;
use tokio::sync::{Semaphore, mpsc};

use crate::context::Context;
use crate::event::RunnerEvent;

/// Starts the maintenance of writes within the limits of [`Pacing`](crate::Pacing).
pub(crate) struct Maintainer {
    context: Arc<Context>,
    permits: Arc<Semaphore>,
    busy: BusyLocks,
    /// When the maintenance of the next write may start.
    next_start: Mutex<Tick>,
}

/// The writes of one lock that could not be maintained. The sender is dropped when the lock's maintenance ends.
type Failures = mpsc::Sender<Vec<Write>>;

impl Maintainer {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(context.pacing.maintained_locks)),
            busy: BusyLocks::default(),
            next_start: Mutex::new(context.writes.timer().tick()),
            context,
        }
    }

    /// Maintains the writes that are due, at each period. A lock whose shadow does not answer delays no other lock.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let context = self.context.clone();
        while !context.is_stopping() {
            if context.writes.clock_was_set_back() {
                context.observe(&RunnerEvent::ClockSetBack);
                context.reconcile.notify_one();
            }
            // Writes that fail stay due. The next pass skips locks that are still being maintained.
            let (failures, _) = mpsc::channel(1);
            if let Err(error) = self.start_pass(false, &failures).await {
                context.observe(&RunnerEvent::DueWritesUnlisted(&error));
            }
            context.pause(context.pacing.period).await;
        }
    }

    /// Reads the shadows of all open writes at each notification, until each of them has been read.
    pub(crate) async fn reconcile_all(self: Arc<Self>) {
        let context = self.context.clone();
        loop {
            tokio::select! {
                () = context.stopping() => return,
                () = context.reconcile.notified() => {}
            }
            let mut pause = context.pacing.period;
            let (mut again, mut failures, mut failed) = loop {
                // What a listing that fails has started needs no receiver: the next one lists it again.
                let (failures, failed) = mpsc::channel(1);
                match self.start_pass(true, &failures).await {
                    Ok(busy) => break (busy, failures, failed),
                    Err(error) => context.observe(&RunnerEvent::OpenWritesUnlisted(&error)),
                }
                if !context.pause(pause).await {
                    return;
                }
                pause = context.longer(pause);
            };
            loop {
                drop(failures);
                while let Some(writes) = failed.recv().await {
                    again.extend(writes);
                }
                if again.is_empty() {
                    break;
                }
                context.observe(&RunnerEvent::NotYetReconciled(again.len()));
                if !context.pause(pause).await {
                    return;
                }
                pause = context.longer(pause);
                (failures, failed) = mpsc::channel(1);
                again = self.start_all(mem::take(&mut again), &failures).await;
            }
        }
    }

    /// Starts the maintenance of all writes that are due or, with `all`, of all writes that are not finished with. Returns the writes of
    /// locks that are being maintained already.
    async fn start_pass(
        self: &Arc<Self>,
        all: bool,
        failures: &Failures,
    ) -> Result<Vec<Write>, RepoError> {
        let (writes, limit) = (&self.context.writes, self.context.pacing.page);
        let (mut skipped, mut seen, mut after) = (Vec::new(), HashSet::new(), None);
        loop {
            let mut page = match all {
                true => writes.scheduled_writes(after, limit).await?,
                false => writes.due_writes(after, limit).await?,
            };
            let is_last = page.len() < limit;
            after = page.last().and_then(DueCursor::of);
            // A write that was maintained during this pass may be on a later page again.
            page.retain(|write| seen.insert(write.id));
            skipped.extend(self.start_all(page, failures).await);
            if is_last || after.is_none() || self.context.is_stopping() {
                return Ok(skipped);
            }
        }
    }

    /// Returns the writes of locks that are being maintained already.
    async fn start_all(self: &Arc<Self>, writes: Vec<Write>, failures: &Failures) -> Vec<Write> {
        let mut by_lock: HashMap<LockId, Vec<Write>> = HashMap::new();
        for write in writes {
            by_lock.entry(write.lock).or_default().push(write);
        }
        let mut skipped = Vec::new();
        for (lock, writes) in by_lock {
            skipped.extend(self.start(lock, writes, failures).await);
        }
        skipped
    }

    async fn start(
        self: &Arc<Self>,
        lock: LockId,
        writes: Vec<Write>,
        failures: &Failures,
    ) -> Vec<Write> {
        let Some(busy) = self.busy.mark(lock) else {
            return writes;
        };
        // The semaphore is never closed.
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            return writes;
        };
        let (maintainer, failures) = (self.clone(), failures.clone());
        self.context
            .spawn_job("the maintenance of a lock", async move {
                let failed = maintainer.maintain_lock(lock, writes).await;
                drop((busy, permit));
                if !failed.is_empty() {
                    // Nobody receives the failures of due writes.
                    let _ = failures.send(failed).await;
                }
            });
        Vec::new()
    }

    /// Returns the writes that need another attempt.
    async fn maintain_lock(&self, lock: LockId, writes: Vec<Write>) -> Vec<Write> {
        let mut failed = Vec::new();
        for write in writes {
            if !self.next_turn().await {
                break;
            }
            match self.context.writes.maintain_write(&write).await {
                MaintenanceOutcome::Done => {}
                MaintenanceOutcome::Repaired(report) => {
                    self.context.observe(&RunnerEvent::Repaired(lock, &report));
                }
                MaintenanceOutcome::Failed => failed.push(write),
            }
        }
        failed
    }

    /// Waits until the maintenance of one more write may start. Returns whether it may: not when the runner is being stopped.
    async fn next_turn(&self) -> bool {
        let now = self.context.writes.timer().tick();
        let start = {
            let mut next = lock_mutex(&self.next_start);
            let start = now.max(*next);
            *next = start.after(self.context.pacing.maintenance_interval);
            start
        };
        self.context.pause(start.0.saturating_sub(now.0)).await
    }
}

/// A task that panics while it holds one of these mutexes leaves the value intact.
fn lock_mutex<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The locks that are being maintained.
#[derive(Clone, Default)]
struct BusyLocks(Arc<Mutex<HashSet<LockId>>>);

/// Marks a lock until it is dropped.
struct BusyMark {
    lock: LockId,
    all: BusyLocks,
}

impl BusyLocks {
    /// `None`: the lock is marked already.
    fn mark(&self, lock: LockId) -> Option<BusyMark> {
        let is_new = lock_mutex(&self.0).insert(lock);
        is_new.then(|| BusyMark {
            lock,
            all: self.clone(),
        })
    }
}

impl Drop for BusyMark {
    fn drop(&mut self) {
        lock_mutex(&self.all.0).remove(&self.lock);
    }
}
