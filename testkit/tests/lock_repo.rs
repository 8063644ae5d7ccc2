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
use keywright_testkit::lock_repo::{Ending, IDLE_CLAIMER, StoreFixture};
use keywright_testkit::{ManualTimer, samples};

async fn fixture() -> StoreFixture {
    let timer = ManualTimer::default();
    let repo = InMemoryLockRepo::new(Arc::new(timer.clone()));
    // The store keeps nothing beyond its process. It stands for one that does: to open it again returns it.
    let repo = Arc::new(repo);
    let same = repo.clone();
    let advance = move |span| timer.advance(span);
    StoreFixture::new(repo, advance, move |_| std::future::ready(same.clone()))
}

mod contract {
    keywright_testkit::lock_repo_cases!(super::fixture);
}

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
    /// The idempotency records by their keys, without the principals.
    records_by_key: Mutex<HashMap<(LockId, IdempotencyKey), IdempotencyRecord>>,
    /// The state of a lock before its last commit.
    before_commit: Mutex<HashMap<LockId, LockSnapshot>>,
    /// The revision of a lock before its last import.
    before_import: Mutex<HashMap<LockId, Revision>>,
    /// A write that was claimed and is returned by the next claim.
    held_claim: Mutex<Option<Write>>,
    /// Held during a claim by the store that holds claims back.
    claiming: tokio::sync::Mutex<()>,
    /// How the process has ended.
    ended: Mutex<Option<Ending>>,
    /// The position of an event that is hidden until a reader is past it.
    hidden: Mutex<Option<Position>>,
    has_forgotten_version: AtomicBool,
    has_purged: AtomicBool,
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
            records_by_key: Mutex::default(),
            before_commit: Mutex::default(),
            before_import: Mutex::default(),
            held_claim: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            ended: Mutex::default(),
            hidden: Mutex::default(),
            has_forgotten_version: AtomicBool::new(false),
            has_purged: AtomicBool::new(false),
            claims: AtomicUsize::new(0),
            in_progress: AtomicUsize::new(0),
            set_forward: AtomicBool::new(false),
            timer,
        }
    }

    fn is(&self, case: &str) -> bool {
        self.case == case
    }

    /// Changes an event as a wrong codec would.
    fn misread(&self, event: &mut RecordedEvent) {
        match &mut event.event {
            LockEvent::KeyAdded(held) if self.is("events_of_every_type_are_read_back") => {
                held.user = None;
            }
            LockEvent::KeyWriteRequested(_)
                if self.is("commit_appends_its_event")
                    && (event.lock.get(), event.version) == (1, LockVersion(2)) =>
            {
                event.time = samples::millis_after(event.time, 1);
            }
            _ => {}
        }
    }

    fn has_ended(&self, ending: Ending) -> bool {
        *self.ended.lock().expect("no panic") == Some(ending)
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
            let is_sample = found.lock.serial_number == SerialNumber::new("SN-1").ok();
            if self.is("imported_lock_is_the_fold_of_its_events")
                && is_sample
                && found.lock.version.0 == 1
            {
                found.lock.serial_number = None;
            }
            let forgets = self.is("save_without_shadow_version_keeps_the_known_one")
                && self.has_forgotten_version.load(Ordering::SeqCst);
            let is_imported = self
                .before_import
                .lock()
                .expect("no panic")
                .contains_key(&lock);
            if forgets || self.is("import_keeps_what_is_known") && is_imported {
                found.shadow_version = None;
            }
            if self.has_ended(Ending::Crash) {
                let before = self.before_commit.lock().expect("no panic");
                if let (true, Some(before)) = (self.is("save_survives_a_crash"), before.get(&lock))
                {
                    return Ok(Some(before.clone()));
                }
                if self.is("claim_survives_a_crash") {
                    for write in &mut found.unfinished {
                        if let WriteState::Prepared(intent) = &mut write.state {
                            intent.epoch = Epoch(1);
                        }
                    }
                }
                if self.is("import_survives_a_crash") && found.unfinished.is_empty() {
                    return Ok(None);
                }
            }
            if self.is("saved_write_is_read_back") {
                for write in &mut found.unfinished {
                    write.cause.requested_by.clear();
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
        let before_import = self
            .before_import
            .lock()
            .expect("no panic")
            .get(&save.lock)
            .copied();
        if self.is("import_makes_earlier_saves_stale") && before_import == Some(save.revision) {
            save.revision = known.revision;
        }
        if save.writes.is_empty() && save.events.is_empty() && save.idempotency.is_none() {
            self.has_forgotten_version.store(true, Ordering::SeqCst);
        }
        if !save.events.is_empty() {
            let mut before = self.before_commit.lock().expect("no panic");
            before.insert(save.lock, known.clone());
        }
        let racy = self.is_racy(&save, &known) && known.revision == save.revision;
        if racy {
            // The claim that runs concurrently may need longer on a busy machine.
            let pauses = match self.case {
                "only_one_of_save_and_claim_succeeds" => 20,
                _ => 1,
            };
            for _ in 0..pauses {
                short_pause().await;
                let now = self.inner.load(save.lock).await?.expect("a lock");
                if now.revision != known.revision {
                    break;
                }
            }
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
        if let Some(record) = &save.idempotency {
            let (scope, record) = (record.scope.clone(), (**record).clone());
            if is_stale {
                let mut stale = self.stale_records.lock().expect("no panic");
                stale.insert(scope, record);
            } else {
                let mut records = self.records_by_key.lock().expect("no panic");
                records.insert((scope.lock, scope.key), record);
            }
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
        if self.is("intent_is_claimed_after_a_crash") && self.has_ended(Ending::Crash) {
            return Ok(None);
        }
        let _one_at_a_time = match self.is("longest_overdue_intent_is_claimed_first") {
            true => Some(self.claiming.lock().await),
            false => None,
        };
        let held = self.held_claim.lock().expect("no panic").take();
        if held.is_some() {
            return Ok(held);
        }
        let mut claimed = self.inner.claim(worker, lease).await?;
        if self.is("longest_overdue_intent_is_claimed_first")
            && claimed.is_some()
            && let Some(second) = self.inner.claim(worker, lease).await?
        {
            *self.held_claim.lock().expect("no panic") = claimed.replace(second);
        }
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
        let Some(mut found) = self.inner.write(id).await? else {
            return Ok(None);
        };
        match self.case {
            "write_keeps_its_anomalies" => found.anomalies = Anomalies::new(),
            "every_state_is_read_back" => {
                if let WriteState::Withdrawn { at } = found.state {
                    found.state = WriteState::Expired { at };
                }
            }
            "every_reason_is_read_back" => {
                if let WriteState::Aborted { reason, .. } = &mut found.state
                    && *reason == FailureReason::ShadowConflict
                {
                    *reason = FailureReason::Throttled;
                }
            }
            "times_are_read_back_to_the_millisecond" => {
                let seconds = found.prepared_at.as_secs();
                found.prepared_at = Timestamp::from_millis(1000 * seconds);
            }
            "longest_texts_are_read_back" => found.cause.requested_by.truncate(64),
            "largest_numbers_are_read_back" => {
                let is_small = |index: &KeyIndex| index.get() < 1 << 31;
                found.slot.index = found.slot.index.filter(is_small);
            }
            "clean_end_loses_nothing"
                if self.has_ended(Ending::Clean) && found.ended_at().is_some() =>
            {
                return Ok(None);
            }
            "purge_keeps_prepared_writes" if self.has_purged.load(Ordering::SeqCst) => {
                return Ok((found.intent().is_none()).then_some(found));
            }
            _ => {}
        }
        Ok(Some(found))
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let more = usize::from(self.is("event_page_starts_at_version_and_respects_limit"));
        let mut events = self.inner.events(lock, first, limit + more).await?;
        for found in &mut events {
            self.misread(found);
        }
        Ok(events)
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

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let mut writes = self.inner.writes(before, limit).await?;
        if self.is("writes_are_listed_newest_first") {
            writes.retain(|write| write.ended_at().is_none());
        }
        Ok(writes)
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        let last = self.inner.last_position().await?;
        Ok(match self.is("last_position_is_the_end_of_the_log") {
            true => Position(last.0 + 1),
            false => last,
        })
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let mut page = self.inner.events_after(after, limit).await?;
        for logged in &mut page {
            self.misread(&mut logged.event);
        }
        match self.case {
            "log_has_every_event_once" => {
                page.retain(|logged| logged.event.event.name() != "KeyWriteFailed");
            }
            "log_keeps_the_order_of_each_lock" => {
                for logged in &mut page {
                    let version = logged.event.version;
                    if version.0 == 3 || version.0 == 4 {
                        let swapped = LockVersion(7 - version.0);
                        let events = self.inner.events(logged.event.lock, swapped, 1).await?;
                        logged.event = events.into_iter().next().unwrap_or(logged.event.clone());
                    }
                }
            }
            "no_event_appears_behind_a_reader" => {
                let mut hidden = self.hidden.lock().expect("no panic");
                let is_third = |l: &&LoggedEvent| l.event.version.0 == 3 && l.event.lock.get() > 2;
                if hidden.is_none() {
                    *hidden = page.iter().find(is_third).map(|logged| logged.position);
                }
                if hidden.is_some_and(|position| after < position) {
                    page.retain(|logged| Some(logged.position) != *hidden);
                }
            }
            "positions_survive_a_crash" if self.has_ended(Ending::Crash) => {
                for logged in &mut page {
                    logged.position.0 += 1;
                }
            }
            _ => {}
        }
        Ok(page)
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
        if self.is("idempotency_records_of_principals_are_apart") && record.is_none() {
            let records = self.records_by_key.lock().expect("no panic");
            record = records.get(&(scope.lock, scope.key.clone())).cloned();
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
        self.has_purged.store(true, Ordering::SeqCst);
        self.records_by_key.lock().expect("no panic").clear();
        let more = usize::from(self.is("purge_deletes_only_what_has_expired"));
        self.inner.purge(now, ended_before, limit + more).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let more = usize::from(self.is("locks_are_listed_in_pages"));
        self.inner.locks(after, limit + more).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        for event in events.iter().filter(|event| event.version > LockVersion(1)) {
            if let Some(known) = self.inner.load(event.lock).await? {
                let mut before = self.before_import.lock().expect("no panic");
                before.insert(event.lock, known.revision);
            }
        }
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
    use contract::{LOCK_REPO_CASES, run_lock_repo_case};

    for broken in LOCK_REPO_CASES {
        for case in LOCK_REPO_CASES {
            if (*broken, *case) == FAILS_SOMETIMES {
                continue;
            }
            let repo = Arc::new(Broken::new(broken));
            let timer = repo.timer.clone();
            let (clock, reopened) = (repo.clone(), repo.clone());
            let advance = move |span| timer.advance(span);
            let store = StoreFixture::new(repo, advance, move |ending| {
                *reopened.ended.lock().expect("no panic") = Some(ending);
                std::future::ready(reopened.clone())
            });
            let mut store = store.with_wall_clock(move |millis| {
                clock.set_forward.store(millis > 0, Ordering::SeqCst);
                Box::pin(std::future::ready(()))
            });
            let outcome = tokio::spawn(async move { run_lock_repo_case(case, &mut store).await });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "store broken for {broken}, case {case}"
            );
        }
    }
}
