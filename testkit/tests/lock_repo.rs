//! The memory store keeps the contract, and for each case there is a broken store that only it catches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_domain::event::{LockEvent, RecordedEvent};
use keywright_domain::lock::{Lock, LockSnapshot};
use keywright_domain::ports::*;
use keywright_domain::values::*;
use keywright_domain::write::{Owner, Write, WriteState};
use keywright_testkit::lock_repo::Store;
use keywright_testkit::{ManualTimer, lock_repo_cases, samples};

type Passing = Box<dyn Fn(Duration) + Sync + Send>;

fn fresh() -> (Arc<InMemoryLockRepo>, Arc<InMemoryLockRepo>, Passing) {
    let timer = ManualTimer::default();
    let repo = Arc::new(InMemoryLockRepo::new(Arc::new(timer.clone())));
    (
        repo.clone(),
        repo,
        Box::new(move |span| timer.advance(span)),
    )
}

lock_repo_cases!(fresh);

/// A memory store that breaks the contract in exactly one way: that of the case it is named after.
struct Broken {
    way: &'static str,
    inner: InMemoryLockRepo,
    /// The revision that a lock had before its last claim.
    unclaimed: Mutex<HashMap<LockId, Revision>>,
    timer: ManualTimer,
}

impl Broken {
    fn new(way: &'static str) -> Self {
        let timer = ManualTimer::default();
        let inner = InMemoryLockRepo::new(Arc::new(timer.clone()));
        Self {
            way,
            inner,
            unclaimed: Mutex::default(),
            timer,
        }
    }

    fn is(&self, way: &str) -> bool {
        self.way == way
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
        // Only saves that are two behind: the claim's case is one behind.
        if self.is("a_stale_save_changes_nothing")
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
        }
        self.inner.save(save).await
    }

    async fn claim(&self, owner: Owner, lease: Duration) -> Result<Option<Write>, RepoError> {
        if self.is("a_claim_waits_for_the_lease") {
            self.timer.advance(lease);
        }
        let claimed = self.inner.claim(owner, lease).await?;
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
        self.inner.write(id).await
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
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let mut due = self.inner.due(until, after, limit).await?;
        if self.is("due_writes_come_in_order") {
            due.reverse();
        }
        Ok(due)
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

#[tokio::test]
async fn each_broken_store_fails_its_own_case_and_no_other() {
    for way in LOCK_REPO_CASES {
        for case in LOCK_REPO_CASES {
            let broken = Arc::new(Broken::new(way));
            let outcome = tokio::spawn(async move {
                let timer = broken.timer.clone();
                let pass = move |span| timer.advance(span);
                let store = Store {
                    locks: &*broken,
                    history: &*broken,
                    pass: &pass,
                };
                run_lock_repo_case(case, &store).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                way == case,
                "the store broken in {way}, case {case}"
            );
        }
    }
}
