//! The store under test, with the steps that the cases have in common.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{
    DeviceCode, DeviceOutcome, FailureReason, LockSnapshot, LockVersion, RecordedEvent, Save,
    ShadowVersion, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::policy::{self, Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{LockHistory, LockRepo};

use crate::samples::{LEASE, NOW, SHADOW_VERSION, created, lock_id, prepared, slot, thing};

/// Advances the monotonic clock of a store by a duration.
pub type AdvanceTime = Arc<dyn Fn(Duration) -> ClockFuture + Send + Sync>;

/// Sets the wall clock of a store, such as that of a database, forward by so many milliseconds, or back if they are negative.
pub type SetWallClock = Arc<dyn Fn(i64) -> ClockFuture + Send + Sync>;

/// Completes when the clock shows the new time.
pub type ClockFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a process with a store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process closes the store. The case has dropped the store before.
    Clean,
    /// The process is killed: the store gets no chance to save anything. The case has not dropped the store yet, so a test may open
    /// a copy of its files.
    Crash,
}

/// Opens the store again after a process has ended.
pub type Reopen =
    Arc<dyn Fn(Ending) -> Pin<Box<dyn Future<Output = OpenStore> + Send>> + Send + Sync>;

/// The two ports of one store.
#[derive(Clone)]
pub struct OpenStore {
    /// The store as a `LockRepo`.
    pub locks: Arc<dyn LockRepo>,
    /// The same store as a `LockHistory`.
    pub history: Arc<dyn LockHistory>,
}

impl<R: LockRepo + LockHistory + 'static> From<Arc<R>> for OpenStore {
    fn from(repo: Arc<R>) -> Self {
        Self {
            locks: repo.clone(),
            history: repo,
        }
    }
}

/// A worker id for calls of `claim` that take nothing over; they only make the store notice open intents.
pub const IDLE_CLAIMER: WorkerId = WorkerId(99);

/// An empty store under test, with control of its clocks.
#[derive(Clone)]
pub struct StoreFixture {
    /// The store under test. `None`: its process has ended.
    store: Option<OpenStore>,
    /// Advances the monotonic clock that measures leases.
    pub advance_time: AdvanceTime,
    /// Sets the wall clock of the store, if it has one. Shifting the times that it has stored has the same effect.
    pub set_wall_clock: SetWallClock,
    /// Opens the store again.
    pub reopen: Reopen,
}

impl StoreFixture {
    /// A store whose monotonic clock is advanced by `advance_time`, and that has no wall clock. `reopen` opens it again after its
    /// process has ended; with [`Ending::Crash`] the earlier store still exists.
    pub fn new<R, F>(
        repo: Arc<R>,
        advance_time: impl Fn(Duration) + Send + Sync + 'static,
        reopen: impl Fn(Ending) -> F + Send + Sync + 'static,
    ) -> Self
    where
        R: LockRepo + LockHistory + 'static,
        F: Future<Output = Arc<R>> + Send + 'static,
    {
        let advance_time = move |span| -> ClockFuture {
            advance_time(span);
            Box::pin(std::future::ready(()))
        };
        Self {
            store: Some(repo.into()),
            advance_time: Arc::new(advance_time),
            set_wall_clock: Arc::new(|_| Box::pin(std::future::ready(()))),
            reopen: Arc::new(move |ending| {
                let reopening = reopen(ending);
                Box::pin(async move { reopening.await.into() })
            }),
        }
    }

    /// A store that keeps nothing beyond its process, for `lock_repo_cases!(volatile …)`.
    pub fn volatile<R>(
        repo: Arc<R>,
        advance_time: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Self
    where
        R: LockRepo + LockHistory + 'static,
    {
        Self::new(repo, advance_time, |_| std::future::pending::<Arc<R>>())
    }

    /// The same store with a wall clock, which `set` sets forward by so many milliseconds, or back if they are negative.
    #[must_use]
    pub fn with_wall_clock(
        mut self,
        set: impl Fn(i64) -> ClockFuture + Send + Sync + 'static,
    ) -> Self {
        self.set_wall_clock = Arc::new(set);
        self
    }

    fn store(&self) -> &OpenStore {
        self.store.as_ref().expect("the store is open")
    }

    pub(super) fn locks(&self) -> &Arc<dyn LockRepo> {
        &self.store().locks
    }

    pub(super) fn history(&self) -> &Arc<dyn LockHistory> {
        &self.store().history
    }

    /// Ends the process of the store, and opens the store again.
    pub(super) async fn end_process(&mut self, ending: Ending) {
        if ending == Ending::Clean {
            self.store = None;
        }
        self.store = Some((self.reopen)(ending).await);
    }

    /// Saves a write as it is.
    pub(super) async fn put(&self, write: &Write) {
        let save = Save {
            writes: vec![write.clone()],
            ..empty_save(&self.load(write.lock.get()).await)
        };
        self.locks().save(save).await.expect("the write is saved");
    }

    /// Lets the store read all open intents, and lets their leases end.
    pub(super) async fn end_leases(&self) {
        // A store may use what it read up to 250 ms ago.
        (self.advance_time)(Duration::from_secs(1)).await;
        let claimed = self.locks().claim(IDLE_CLAIMER, LEASE).await;
        assert_eq!(claimed, Ok(None), "no lease has ended");
        (self.advance_time)(LEASE).await;
    }

    pub(super) async fn load(&self, id: u64) -> LockSnapshot {
        let loaded = self.locks().load(lock_id(id)).await;
        loaded.expect("the store answers").expect("the lock exists")
    }

    /// Imports a sample lock.
    pub(super) async fn with_lock(&self, id: u64) -> LockSnapshot {
        let imported = self.history().import(vec![created(lock_id(id))]).await;
        imported.expect("the lock is imported");
        self.load(id).await
    }

    /// Saves a prepared write.
    pub(super) async fn prepare(&self, lock: u64, write: u128) -> Write {
        let (write, save) = prepared(&self.load(lock).await, write, slot("key", Some(2)));
        self.locks().save(save).await.expect("the intent is saved");
        write
    }

    /// Saves a write that the shadow has accepted.
    pub(super) async fn send(&self, lock: u64, write: u128) -> Write {
        let prepared = self.prepare(lock, write).await;
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let (sent, save) = policy::commit(&snapshot, &prepared, SHADOW_VERSION, &[], &limits, NOW);
        self.locks().save(save).await.expect("the commit is saved");
        sent
    }

    /// Saves the end of a prepared write that the shadow has refused.
    pub(super) async fn abort(&self, lock: u64, prepared: &Write) {
        let snapshot = self.load(lock).await;
        let save = policy::abort(&snapshot, prepared, &FailureReason::Throttled, None, NOW);
        self.locks().save(save).await.expect("the abort is saved");
    }

    /// Saves a failure that the lock has reported.
    pub(super) async fn fail(&self, lock: u64, sent: &Write) -> Write {
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let code = DeviceCode::new("E42").expect("a device code");
        let outcome = DeviceOutcome::Failed(FailureReason::DeviceError(code));
        let reported = ReportedResult {
            thing: &thing(lock_id(lock)),
            shadow_version: Some(ShadowVersion(6)),
            outcome: &outcome,
            entry_remains: false,
        };
        let decision = policy::decide_report(&snapshot, Some(sent), &reported, &limits, NOW);
        let ReportDecision::Record(after, save) = decision else {
            panic!("the report is new")
        };
        self.locks().save(save).await.expect("the report is saved");
        *after
    }

    pub(super) async fn events(&self, lock: u64) -> Vec<RecordedEvent> {
        self.history()
            .events(lock_id(lock), LockVersion(1), 1000)
            .await
            .expect("the store answers")
    }

    pub(super) async fn stored(&self, id: u128) -> Option<Write> {
        let stored = self.history().write(WriteId::from_u128(id)).await;
        stored.expect("the store answers")
    }

    pub(super) async fn due(&self, until: Timestamp, limit: usize) -> Vec<WriteId> {
        let due = self.history().due(until, None, limit).await;
        let due = due.expect("the store answers").into_iter();
        due.map(|write| write.id).collect()
    }
}

/// A save that changes only the revision.
pub(super) fn empty_save(snapshot: &LockSnapshot) -> Save {
    Save {
        lock: snapshot.lock.id,
        revision: snapshot.revision,
        events: Vec::new(),
        folded: None,
        writes: Vec::new(),
        shadow_version: None,
        idempotency: None,
        new_anomalies: Vec::new(),
    }
}
