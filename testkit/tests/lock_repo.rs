//! The in-memory store fulfils the contract of `LockRepo` and `LockHistory`, and for each case a broken store fails this case and
//! no other.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_domain::model::{
    Anomalies, IdempotencyRecord, IdempotencyScope, Lock, LockEvent, LockSnapshot, RecordedEvent,
    WorkerId, Write, WriteState, *,
};
use keywright_domain::ports::*;
use keywright_testkit::lock_repo::{IDLE_CLAIMER, StoreFixture};
use keywright_testkit::{ManualTimer, lock_repo_cases, samples};

async fn fixture() -> StoreFixture {
    let timer = ManualTimer::default();
    let repo = InMemoryLockRepo::new(Arc::new(timer.clone()));
    StoreFixture::new(Arc::new(repo), move |span| timer.advance(span))
}

lock_repo_cases!(fixture);

/// A store that violates the contract only in what the named case checks.
struct Broken {
    case: &'static str,
    inner: InMemoryLockRepo,
    /// The revision of a lock before its last claim.
    unclaimed: Mutex<HashMap<LockId, Revision>>,
    /// The last write that was committed.
    sent: Mutex<Option<Write>>,
    /// The last write that was claimed.
    claimed: Mutex<Option<Write>>,
    /// The idempotency records of stale saves.
    stale_records: Mutex<HashMap<IdempotencyScope, IdempotencyRecord>>,
    claims: AtomicUsize,
    in_progress: AtomicUsize,
    /// Whether the wall clock was set forward.
    set_forward: AtomicBool,
    timer: ManualTimer,
}

/// Lets other tasks run.
async fn short_pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

impl Broken {
    fn new(case: &'static str) -> Self {
        let timer = ManualTimer::default();
        let inner = InMemoryLockRepo::new(Arc::new(timer.clone()));
        Self {
            case,
            inner,
            unclaimed: Mutex::default(),
            sent: Mutex::default(),
            claimed: Mutex::default(),
            stale_records: Mutex::default(),
            claims: AtomicUsize::new(0),
            in_progress: AtomicUsize::new(0),
            set_forward: AtomicBool::new(false),
            timer,
        }
    }

    fn is(&self, case: &str) -> bool {
        self.case == case
    }

    /// Whether the check of the revision and the save are not atomic.
    fn is_racy(&self, save: &Save, known: &LockSnapshot) -> bool {
        let prepares = save.writes.iter().any(|w| w.intent().is_some());
        let aborts = |w: &Write| matches!(w.state, WriteState::Aborted { .. });
        match self.case {
            "exactly_one_of_concurrent_saves_is_applied" => {
                prepares && known.lock.version == LockVersion(1)
            }
            "concurrent_writes_of_one_lock_lose_nothing" => {
                prepares && known.lock.version > LockVersion(1)
            }
            "only_one_of_save_and_claim_succeeds" => save.writes.iter().any(aborts),
            _ => false,
        }
    }
}

#[async_trait]
impl LockRepo for Broken {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let mut found = self.inner.load(lock).await?;
        if let Some(found) = &mut found {
            if self.is("imported_lock_is_the_fold_of_its_events") && found.lock.version.0 == 1 {
                found.lock.serial_number = None;
            }
            if self.is("commit_appends_its_event") {
                found.shadow_version = None;
            }
            if self.is("saved_write_is_read_back") {
                for write in &mut found.unfinished {
                    write.requested_by.clear();
                }
            }
            if self.is("settled_write_keeps_its_reason") {
                found.uncleared.clear();
            }
            if self.is("superseded_write_is_not_live") {
                let due = self.inner.due(Timestamp::MAX, None, 9).await?;
                let superseded = |w: &Write| w.lock == lock && w.state.name() == "SUPERSEDED";
                let superseded = due.into_iter().filter(superseded);
                found.unfinished.extend(superseded);
            }
        } else if self.is("unknown_lock_loads_as_none") && lock.get() == 404 {
            self.inner
                .import(vec![samples::created(lock)])
                .await
                .expect("imported");
            return self.inner.load(lock).await;
        }
        Ok(found)
    }

    async fn save(&self, mut save: Save) -> Result<(), RepoError> {
        let now = self.inner.load(save.lock).await?.map(|s| s.revision);
        let before_claim = self
            .unclaimed
            .lock()
            .expect("no panic")
            .get(&save.lock)
            .copied();
        if self.is("claim_makes_saves_of_the_earlier_worker_stale")
            && before_claim == Some(save.revision)
        {
            save.revision = now.expect("a lock");
        }
        // Other cases have stale saves that are one revision behind, or saves of locks with events.
        if self.is("stale_save_changes_nothing")
            && save.revision <= Revision(1)
            && now.is_some_and(|now| now.0 >= save.revision.0 + 2)
        {
            save.revision = now.expect("a lock");
        }
        let aborts = save
            .writes
            .iter()
            .any(|w| matches!(w.state, WriteState::Aborted { .. }));
        if self.is("abort_appends_no_event") && aborts {
            let snapshot = self.inner.load(save.lock).await?.expect("a lock");
            let mut event = samples::created(save.lock);
            event.version = snapshot.lock.version.next();
            event.event = LockEvent::OwnerSet {
                user: samples::owner(),
            };
            save.events.push(event);
            let mut lock = snapshot.lock;
            lock.version = lock.version.next();
            save.folded = Some(Box::new(lock));
        }
        let known = self.inner.load(save.lock).await?.expect("a lock");
        let racy = self.is_racy(&save, &known) && known.revision == save.revision;
        if racy {
            short_pause().await;
            let now = self.inner.load(save.lock).await?.expect("a lock");
            save.revision = now.revision;
        }
        if self.is("concurrent_writes_of_many_locks_do_not_conflict") {
            let others = self.in_progress.fetch_add(1, Ordering::SeqCst);
            short_pause().await;
            self.in_progress.fetch_sub(1, Ordering::SeqCst);
            if others > 0 && known.lock.version == LockVersion(1) {
                return Err(RepoError::Stale);
            }
        }
        if let Some(folded) = &mut save.folded {
            // Restores the member that a broken load has cleared.
            folded.serial_number = known.lock.serial_number;
        }
        let is_stale = known.revision != save.revision;
        if let Some(record) = save.idempotency.as_ref().filter(|_| is_stale) {
            let mut stale = self.stale_records.lock().expect("no panic");
            stale.insert(record.scope.clone(), (**record).clone());
        }
        let sent = save.writes.iter().find(|w| w.is_open()).cloned();
        self.inner.save(save).await?;
        if racy {
            // The racing saves are done before the first of them is answered.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(sent) = sent {
            *self.sent.lock().expect("no panic") = Some(sent);
        }
        Ok(())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        if self.is("concurrent_claims_take_different_writes") {
            let others = self.in_progress.fetch_add(1, Ordering::SeqCst);
            short_pause().await;
            self.in_progress.fetch_sub(1, Ordering::SeqCst);
            let last = self.claimed.lock().expect("no panic").clone();
            if others > 2 && last.is_some() {
                return Ok(last);
            }
        }
        let first = worker != IDLE_CLAIMER && self.claims.fetch_add(1, Ordering::SeqCst) == 0;
        if self.is("claim_waits_for_the_end_of_the_lease") && first {
            self.timer.advance(lease);
        }
        if self.is("wall_clock_steps_do_not_move_leases") && self.set_forward.load(Ordering::SeqCst)
        {
            self.timer.advance(lease);
        }
        let mut claimed = self.inner.claim(worker, lease).await?;
        let again = |w: &Write| w.intent().is_some_and(|i| i.epoch > Epoch(2));
        if self.is("claimed_intent_is_claimed_again_after_its_lease")
            && claimed.as_ref().is_some_and(again)
        {
            return Ok(None);
        }
        if self.is("closed_intent_is_never_claimed") && claimed.is_none() {
            claimed = self.sent.lock().expect("no panic").clone();
        }
        if claimed.is_some() {
            self.claimed.lock().expect("no panic").clone_from(&claimed);
        }
        if let Some(write) = &claimed {
            let now = self.inner.load(write.lock).await?.expect("a lock").revision;
            self.unclaimed
                .lock()
                .expect("no panic")
                .insert(write.lock, Revision(now.0 - 1));
        }
        Ok(claimed)
    }
}

#[async_trait]
impl LockHistory for Broken {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        let mut found = self.inner.write(id).await?;
        if let Some(found) = &mut found
            && self.is("write_keeps_its_anomalies")
        {
            found.anomalies = Anomalies::new();
        }
        Ok(found)
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let more = usize::from(self.is("event_page_starts_at_version_and_respects_limit"));
        self.inner.events(lock, first, limit + more).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let mut due = self.inner.due(until, after, limit).await?;
        if self.is("due_writes_are_ordered") {
            due.reverse();
        }
        Ok(due)
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let mut backlog = self.inner.backlog(recent_times).await?;
        if self.is("backlog_counts_unfinished_writes") {
            backlog.unconfirmed = 0;
        }
        Ok(backlog)
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let mut record = self.inner.idempotency_record(scope).await?;
        if let Some(record) = &mut record
            && self.is("idempotency_record_is_read_back")
        {
            record.version_without_event = None;
        }
        if self.is("stale_save_stores_no_idempotency_record") && record.is_none() {
            let stale = self.stale_records.lock().expect("no panic");
            record = stale.get(scope).cloned();
        }
        Ok(record)
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let more = usize::from(self.is("purge_deletes_only_what_has_expired"));
        self.inner.purge(now, ended_before, limit + more).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let more = usize::from(self.is("locks_are_listed_in_pages"));
        self.inner.locks(after, limit + more).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        if !self.is("import_is_atomic") {
            return self.inner.import(events).await;
        }
        for event in events {
            self.inner.import(vec![event]).await?;
        }
        Ok(())
    }
}

/// A store that is broken for the first of these cases fails the second one only sometimes, because the second one is a race.
const FAILS_SOMETIMES: (&str, &str) = (
    "claim_makes_saves_of_the_earlier_worker_stale",
    "only_one_of_save_and_claim_succeeds",
);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_broken_store_fails_its_own_case_and_no_other() {
    for broken in LOCK_REPO_CASES {
        for case in LOCK_REPO_CASES {
            if (*broken, *case) == FAILS_SOMETIMES {
                continue;
            }
            let repo = Arc::new(Broken::new(broken));
            let timer = repo.timer.clone();
            let clock = repo.clone();
            let store = StoreFixture::new(repo, move |span| timer.advance(span));
            let store = store.with_wall_clock(move |millis| {
                clock.set_forward.store(millis > 0, Ordering::SeqCst);
                Box::pin(std::future::ready(()))
            });
            let outcome = tokio::spawn(async move { run_lock_repo_case(case, &store).await });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "store broken for {broken}, case {case}"
            );
        }
    }
}
