//! The memory store keeps the contract, and for each case there is a broken store that only it catches.

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
use keywright_testkit::lock_repo::{OBSERVER, StoreFixture};
use keywright_testkit::{ManualTimer, lock_repo_cases, samples};

async fn fresh() -> StoreFixture {
    let timer = ManualTimer::default();
    let repo = InMemoryLockRepo::new(Arc::new(timer.clone()));
    StoreFixture::new(Arc::new(repo), move |span| timer.advance(span))
}

lock_repo_cases!(fresh);

/// A memory store that breaks the contract in exactly one way: that of the case it is named after.
struct Broken {
    way: &'static str,
    inner: InMemoryLockRepo,
    /// The revision that a lock had before its last claim.
    unclaimed: Mutex<HashMap<LockId, Revision>>,
    /// A write that was committed.
    sent: Mutex<Option<Write>>,
    /// The write that was claimed last.
    claimed: Mutex<Option<Write>>,
    /// What a save that came too late was to keep.
    kept_late: Mutex<HashMap<IdempotencyScope, IdempotencyRecord>>,
    claims: AtomicUsize,
    under_way: AtomicUsize,
    /// The wall clock was set forward.
    set_forward: AtomicBool,
    timer: ManualTimer,
}

/// Lets others run.
async fn linger() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

impl Broken {
    fn new(way: &'static str) -> Self {
        let timer = ManualTimer::default();
        let inner = InMemoryLockRepo::new(Arc::new(timer.clone()));
        Self {
            way,
            inner,
            unclaimed: Mutex::default(),
            sent: Mutex::default(),
            claimed: Mutex::default(),
            kept_late: Mutex::default(),
            claims: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            set_forward: AtomicBool::new(false),
            timer,
        }
    }

    fn is(&self, way: &str) -> bool {
        self.way == way
    }

    /// Whether this save is checked first and done later, as if nothing could happen in between.
    fn is_careless(&self, save: &Save, known: &LockSnapshot) -> bool {
        let prepares = save.writes.iter().any(|w| w.intent().is_some());
        let aborts = |w: &Write| matches!(w.state, WriteState::Aborted { .. });
        match self.way {
            "of_saves_at_once_one_is_taken" => prepares && known.lock.version == LockVersion(1),
            "many_tasks_on_one_lock_lose_nothing" => {
                prepares && known.lock.version > LockVersion(1)
            }
            "a_save_and_a_take_over_exclude_each_other" => save.writes.iter().any(aborts),
            _ => false,
        }
    }
}

#[async_trait]
impl LockRepo for Broken {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let mut found = self.inner.load(lock).await?;
        if let Some(found) = &mut found {
            if self.is("an_imported_lock_is_the_fold_of_its_events") && found.lock.version.0 == 1 {
                found.lock.serial_number = None;
            }
            if self.is("a_commit_appends_its_event") {
                found.shadow_version = None;
            }
            if self.is("a_saved_write_comes_back") {
                for write in &mut found.unfinished {
                    write.requested_by.clear();
                }
            }
            if self.is("a_settled_write_keeps_its_reason") {
                found.uncleared.clear();
            }
            if self.is("a_superseded_write_is_not_live") {
                let looked_at = self.inner.due(Timestamp::MAX, None, 9).await?;
                let superseded = |w: &Write| w.lock == lock && w.state.name() == "SUPERSEDED";
                found
                    .unfinished
                    .extend(looked_at.into_iter().filter(superseded));
            }
        } else if self.is("an_unknown_lock_is_none") && lock.get() == 404 {
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
            .expect("no test panics while it holds this")
            .get(&save.lock)
            .copied();
        if self.is("a_claim_outdates_the_earlier_owner") && before_claim == Some(save.revision) {
            save.revision = now.expect("a lock");
        }
        // Only saves on a new lock that are two behind: other cases have one behind, or a used lock.
        if self.is("a_stale_save_changes_nothing")
            && save.revision <= Revision(1)
            && now.is_some_and(|now| now.0 >= save.revision.0 + 2)
        {
            save.revision = now.expect("a lock");
        }
        let aborts = save
            .writes
            .iter()
            .any(|w| matches!(w.state, WriteState::Aborted { .. }));
        if self.is("an_abort_leaves_the_stream_alone") && aborts {
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
        let careless = self.is_careless(&save, &known) && known.revision == save.revision;
        if careless {
            linger().await;
            let now = self.inner.load(save.lock).await?.expect("a lock");
            save.revision = now.revision;
        }
        if self.is("many_tasks_on_many_locks_do_not_meet") {
            let others = self.under_way.fetch_add(1, Ordering::SeqCst);
            linger().await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            if others > 0 && known.lock.version == LockVersion(1) {
                return Err(RepoError::Stale);
            }
        }
        if let Some(folded) = &mut save.folded {
            // What a broken load did not tell is not lost for good.
            folded.serial_number = known.lock.serial_number;
        }
        if let Some(kept) = save
            .idempotency
            .as_ref()
            .filter(|_| known.revision != save.revision)
        {
            let mut late = self.kept_late.lock().expect("no panic");
            late.insert(kept.scope.clone(), (**kept).clone());
        }
        let sent = save.writes.iter().find(|w| w.is_open()).cloned();
        self.inner.save(save).await?;
        if careless {
            // So that who was as careless meanwhile is done, too, when the first goes on.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(sent) = sent {
            *self.sent.lock().expect("no panic") = Some(sent);
        }
        Ok(())
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        if self.is("of_claims_at_once_each_takes_another_write") {
            let others = self.under_way.fetch_add(1, Ordering::SeqCst);
            linger().await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            let last = self.claimed.lock().expect("no panic").clone();
            if others > 2 && last.is_some() {
                return Ok(last);
            }
        }
        let first = owner != OBSERVER && self.claims.fetch_add(1, Ordering::SeqCst) == 0;
        if self.is("a_claim_waits_for_the_lease") && first {
            self.timer.advance(lease);
        }
        if self.is("a_wall_clock_moves_no_lease") && self.set_forward.load(Ordering::SeqCst) {
            self.timer.advance(lease);
        }
        let mut claimed = self.inner.claim(owner, lease).await?;
        let again = |w: &Write| w.intent().is_some_and(|i| i.epoch > Epoch(2));
        if self.is("a_take_over_is_taken_over") && claimed.as_ref().is_some_and(again) {
            return Ok(None);
        }
        if self.is("a_closed_intent_is_never_claimed") && claimed.is_none() {
            claimed = self.sent.lock().expect("no panic").clone();
        }
        if claimed.is_some() {
            self.claimed.lock().expect("no panic").clone_from(&claimed);
        }
        if let Some(write) = &claimed {
            let now = self.inner.load(write.lock).await?.expect("a lock").revision;
            self.unclaimed
                .lock()
                .expect("no test panics while it holds this")
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
            && self.is("a_write_keeps_its_anomalies")
        {
            found.anomalies = Anomalies::NONE;
        }
        Ok(found)
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let more = usize::from(self.is("pages_of_events_are_exact"));
        self.inner.events(lock, first, limit + more).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let mut due = self.inner.due(until, after, limit).await?;
        if self.is("due_writes_come_in_order") {
            due.reverse();
        }
        Ok(due)
    }

    async fn backlog(&self, recently: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        let mut backlog = self.inner.backlog(recently).await?;
        if self.is("what_is_unfinished_is_counted") {
            backlog.unconfirmed = 0;
        }
        Ok(backlog)
    }

    async fn idempotency_record(
        &self,
        request: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let mut kept = self.inner.idempotency_record(request).await?;
        if let Some(kept) = &mut kept
            && self.is("a_kept_answer_comes_back")
        {
            kept.version_without_event = None;
        }
        if self.is("a_stale_save_keeps_no_answer") && kept.is_none() {
            let late = self.kept_late.lock().expect("no panic");
            kept = late.get(request).cloned();
        }
        Ok(kept)
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let more = usize::from(self.is("what_is_over_is_forgotten"));
        self.inner.purge(now, ended_before, limit + more).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let more = usize::from(self.is("locks_come_in_pages"));
        self.inner.locks(after, limit + more).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        if !self.is("an_import_is_all_or_nothing") {
            return self.inner.import(events).await;
        }
        for event in events {
            self.inner.import(vec![event]).await?;
        }
        Ok(())
    }
}

/// A store without that fence lets the race through as well, or does not, as the race goes.
const BY_CHANCE: (&str, &str) = (
    "a_claim_outdates_the_earlier_owner",
    "a_save_and_a_take_over_exclude_each_other",
);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_broken_store_fails_its_own_case_and_no_other() {
    for way in LOCK_REPO_CASES {
        for case in LOCK_REPO_CASES {
            if (*way, *case) == BY_CHANCE {
                continue;
            }
            let broken = Arc::new(Broken::new(way));
            let timer = broken.timer.clone();
            let clock = broken.clone();
            let store = StoreFixture::new(broken, move |span| timer.advance(span));
            let store = store.with_wall_clock(move |millis| {
                clock.set_forward.store(millis > 0, Ordering::SeqCst);
                Box::pin(std::future::ready(()))
            });
            let outcome = tokio::spawn(async move { run_lock_repo_case(case, &store).await });
            assert_eq!(
                outcome.await.is_err(),
                way == case,
                "the store broken in {way}, case {case}"
            );
        }
    }
}
