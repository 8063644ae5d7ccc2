//! What goes on beside the requests: reports are settled, unfinished writes recovered, locks kept tidy.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{DeviceReport, DueCursor, LockId, Write, WriteId};
use keywright_domain::policy::IgnoreReason;
use keywright_domain::ports::{DeviceReports, LockHistory, RepoError, ReportStreamItem};
use keywright_domain::{AuditReport, KeyWrites, MaintenanceOutcome, Settlement};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{error, info, warn};

use crate::metrics::Metrics;

/// How often unfinished and due writes are looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// How many unfinished writes are recovered at once: the pace of recovery.
const RECOVERIES: usize = 8;

/// How many locks are attended to at once: the pace of looking, expiring and clearing.
const ATTENDING: usize = 16;

/// Writes are attended to no faster than one in so long: 200 a second, because AWS IoT takes 400 requests a second of an
/// account in a small region, and writes want some of them.
const APART: Duration = Duration::from_millis(5);

/// How many due writes are listed at once.
const PAGE: usize = 256;

/// How many reports are settled at once.
const SETTLING: usize = 64;

/// How long after each other locks are audited: 20 a second, beside everything else that asks the shadows.
const AUDIT_APART: Duration = Duration::from_millis(50);

/// How often the store is asked whether it is there, and how long it may take to say so.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// How often it is counted what is unfinished.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked for what is kept no longer, and how much of it is deleted at once.
const PURGE_INTERVAL: Duration = Duration::from_secs(3);
const PURGE_BATCH: usize = 256;

/// The pauses between the tries to settle one report.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between the tries to read shadows that could not be read.
const MAX_RECONCILE_PAUSE: Duration = Duration::from_secs(30);

/// Starts all of them. None of them ends by itself; they end with the set.
pub(crate) fn start(
    writes: &Arc<KeyWrites>,
    reports: Vec<Arc<dyn DeviceReports>>,
    metrics: &Arc<Metrics>,
) -> JoinSet<()> {
    let scheduler = Arc::new(MaintenanceScheduler::new(writes.clone(), metrics.clone()));
    // At start-up, reports may have been missed.
    let look = Arc::new(Notify::new());
    look.notify_one();
    let mut workers = JoinSet::new();
    for reports in reports {
        workers.spawn(follow(
            reports,
            writes.clone(),
            look.clone(),
            metrics.clone(),
        ));
    }
    workers.spawn(reconcile_all(scheduler.clone(), look.clone()));
    workers.spawn(maintain(scheduler, look));
    workers.spawn(purge(writes.clone()));
    workers.spawn(count(writes.clone(), metrics.clone()));
    for _ in 0..RECOVERIES {
        workers.spawn(recover(writes.clone()));
    }
    workers
}

/// Settles what locks report. The stream is read on while reports are being settled.
async fn follow(
    reports: Arc<dyn DeviceReports>,
    writes: Arc<KeyWrites>,
    look: Arc<Notify>,
    metrics: Arc<Metrics>,
) {
    let places = Arc::new(Semaphore::new(SETTLING));
    let mut settling = JoinSet::new();
    loop {
        match reports.next().await {
            Ok(ReportStreamItem::Report(report, acknowledge)) => {
                // The semaphore is never closed.
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                let (writes, metrics) = (writes.clone(), metrics.clone());
                settling.spawn(async move {
                    settle(&writes, &report, &metrics).await;
                    acknowledge();
                    drop(place);
                });
                while settling.try_join_next().is_some() {}
            }
            Ok(ReportStreamItem::Resumed) => look.notify_one(),
            Err(closed) => return error!(%closed, "the stream of reports has ended"),
        }
    }
}

/// Tries until the report is settled.
async fn settle(writes: &KeyWrites, report: &DeviceReport, metrics: &Metrics) {
    let mut pause = FIRST_PAUSE;
    loop {
        match writes.settle(report).await {
            Ok(settlements) => {
                let results = report.results.iter().zip(settlements);
                for (result, settlement) in results {
                    let (thing, write) = (&report.thing, result.write);
                    metrics.reported(&settlement);
                    match settlement {
                        Settlement::Ignored(IgnoreReason::Contradiction) => {
                            warn!(%thing, %write, "contradiction: no such write was sent");
                        }
                        Settlement::Ignored(IgnoreReason::WrongThing) => {
                            warn!(%thing, %write, "contradiction: the write is another thing's");
                        }
                        Settlement::Corrupt(error) => {
                            error!(%thing, %write, %error, "the report cannot be settled");
                        }
                        Settlement::Recorded(_) | Settlement::Ignored(_) => {}
                    }
                }
                return;
            }
            Err(error) => warn!(thing = %report.thing, %error, "trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Step 8, at start-up and every second.
async fn recover(writes: Arc<KeyWrites>) {
    loop {
        match writes.recover_next().await {
            Ok(Some(write)) => {
                info!(%write, "an unfinished write was taken up");
                continue;
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "unfinished writes could not be looked for"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Attends to what is due, every second; a lock whose shadow does not answer holds up no other.
async fn maintain(scheduler: Arc<MaintenanceScheduler>, look: Arc<Notify>) {
    let mut contradictions = 0;
    loop {
        if scheduler.writes.clock_was_set_back() {
            warn!("the clock was set back; all open writes are looked at again");
            look.notify_one();
        }
        match scheduler.pass(false).await {
            // What is still going on is skipped by the next pass.
            Ok(mut going_on) => going_on.detach_all(),
            Err(error) => warn!(%error, "due writes could not be listed"),
        }
        let counted = scheduler.writes.contradictions();
        if counted > contradictions {
            warn!(count = counted, "contradictions up to now");
            contradictions = counted;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Counts the reports that were omitted because too many waited.
pub(crate) async fn count_omitted_reports(
    mut omitted: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
) {
    while omitted.changed().await.is_ok() {
        metrics.omitted_reports(*omitted.borrow_and_update());
    }
    // No worker ends before the others do.
    std::future::pending::<()>().await;
}

/// Asks the store for something that is not there, twice a second, and tells whether it answers.
pub(crate) async fn watch_store(history: Arc<dyn LockHistory>, tell: watch::Sender<bool>) {
    loop {
        let asked = history.write(WriteId::from_u128(0));
        let answers = matches!(tokio::time::timeout(ANSWERS_WITHIN, asked).await, Ok(Ok(_)));
        if tell.send_replace(answers) != answers {
            match answers {
                true => info!("the store of locks answers again"),
                false => warn!("the store of locks does not answer"),
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Counts what is unfinished, so that who reads the metrics does not ask the store.
async fn count(writes: Arc<KeyWrites>, metrics: Arc<Metrics>) {
    loop {
        match writes.backlog().await {
            Ok(backlog) => metrics.backlog(&backlog),
            Err(error) => warn!(%error, "what is unfinished could not be counted"),
        }
        metrics.contradictions(writes.contradictions());
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Audits all locks whenever it is time, one after the other; what differs is counted and logged, and left as it is.
pub(crate) async fn audit(
    writes: Arc<KeyWrites>,
    history: Arc<dyn LockHistory>,
    metrics: Arc<Metrics>,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let mut after = None;
        loop {
            let page = match history.locks(after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(%error, "locks could not be listed for their audit");
                    break;
                }
            };
            for lock in &page {
                tokio::time::sleep(AUDIT_APART).await;
                match writes.audit(lock.id, false).await {
                    Ok(audited) => {
                        metrics.audited(&audited);
                        log_findings(lock.id, &audited);
                    }
                    Err(error) => warn!(lock = %lock.id, %error, "a lock could not be audited"),
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id),
                _ => break,
            }
        }
    }
}

fn log_findings(lock: LockId, audited: &AuditReport) {
    let repaired = audited.repaired;
    for finding in &audited.findings {
        let (write, finding) = (finding.write(), finding.name());
        warn!(%lock, %write, finding, repaired, "a shadow differs from its writes");
    }
}

/// Deletes what is kept no longer, a little at a time.
async fn purge(writes: Arc<KeyWrites>) {
    loop {
        match writes.purge(PURGE_BATCH).await {
            Ok(forgotten) if forgotten >= PURGE_BATCH => {
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "what is kept no longer could not be deleted"),
        }
        tokio::time::sleep(PURGE_INTERVAL).await;
    }
}

/// Reads the shadows of all open writes whenever it is told to, until each has been read.
async fn reconcile_all(scheduler: Arc<MaintenanceScheduler>, look: Arc<Notify>) {
    loop {
        look.notified().await;
        let mut pause = PERIOD;
        let mut going_on = loop {
            match scheduler.pass(true).await {
                Ok(going_on) => break going_on,
                Err(error) => warn!(%error, "open writes could not be listed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RECONCILE_PAUSE);
        };
        loop {
            let mut failed = Vec::new();
            while let Some(outcome) = going_on.join_next().await {
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
            scheduler.begin_all(failed, &mut going_on).await;
        }
    }
}

/// Attends to writes: several locks at once, the writes of one lock one after the other.
struct MaintenanceScheduler {
    writes: Arc<KeyWrites>,
    places: Arc<Semaphore>,
    busy: Arc<Mutex<HashSet<LockId>>>,
    pace: Arc<AsyncMutex<Interval>>,
    metrics: Arc<Metrics>,
}

impl MaintenanceScheduler {
    fn new(writes: Arc<KeyWrites>, metrics: Arc<Metrics>) -> Self {
        let mut pace = tokio::time::interval(APART);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            writes,
            places: Arc::new(Semaphore::new(ATTENDING)),
            busy: Arc::default(),
            pace: Arc::new(AsyncMutex::new(pace)),
            metrics,
        }
    }

    /// Begins to attend to all writes that are due, or to all that are not done with. Each task ends with the
    /// writes that have to be attended to again.
    async fn pass(&self, all: bool) -> Result<JoinSet<Vec<Write>>, RepoError> {
        let (mut going_on, mut seen, mut after) = (JoinSet::new(), HashSet::new(), None);
        loop {
            let mut page = self.writes.due(all, after, PAGE).await?;
            let last = page.len() < PAGE;
            after = page.last().and_then(DueCursor::of);
            // What was attended to may turn up again on a later page.
            page.retain(|write| seen.insert(write.id));
            self.begin_all(page, &mut going_on).await;
            if last || after.is_none() {
                return Ok(going_on);
            }
        }
    }

    async fn begin_all(&self, writes: Vec<Write>, going_on: &mut JoinSet<Vec<Write>>) {
        let mut by_lock: HashMap<LockId, Vec<Write>> = HashMap::new();
        for write in writes {
            by_lock.entry(write.lock).or_default().push(write);
        }
        for (lock, writes) in by_lock {
            self.begin(lock, writes, going_on).await;
        }
    }

    async fn begin(&self, lock: LockId, due: Vec<Write>, going_on: &mut JoinSet<Vec<Write>>) {
        let Some(busy) = Busy::mark(lock, &self.busy) else {
            going_on.spawn(async move { due });
            return;
        };
        // The semaphore is never closed.
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return;
        };
        let (writes, pace) = (self.writes.clone(), self.pace.clone());
        let metrics = self.metrics.clone();
        going_on.spawn(async move {
            let (_busy, _place) = (busy, place);
            let mut failed = Vec::new();
            for write in due {
                pace.lock().await.tick().await;
                match writes.maintain_write(&write).await {
                    MaintenanceOutcome::Done => {}
                    MaintenanceOutcome::Repaired(audited) => {
                        metrics.audited(&audited);
                        log_findings(lock, &audited);
                    }
                    MaintenanceOutcome::Failed => failed.push(write),
                }
            }
            failed
        });
    }
}

/// The mark on a lock that is being attended to, until it is dropped.
struct Busy {
    lock: LockId,
    all: Arc<Mutex<HashSet<LockId>>>,
}

fn guard(all: &Mutex<HashSet<LockId>>) -> MutexGuard<'_, HashSet<LockId>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Busy {
    fn mark(lock: LockId, all: &Arc<Mutex<HashSet<LockId>>>) -> Option<Self> {
        let marked = guard(all).insert(lock);
        marked.then(|| Self {
            lock,
            all: all.clone(),
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        guard(&self.all).remove(&self.lock);
    }
}
