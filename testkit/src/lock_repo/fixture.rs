//! The store under test, with the steps that the cases have in common.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{
    DeviceCode, DeviceOutcome, FailureReason, LockSnapshot, LockVersion, RecordedEvent,
    ShadowVersion, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::policy::{self, Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{LockHistory, LockRepo};

use crate::samples::{LEASE, NOW, created, lock_id, prepared, slot, thing};

/// Advances the monotonic clock of a store by a duration.
pub type AdvanceTime = Arc<dyn Fn(Duration) -> ClockFuture + Send + Sync>;

/// Sets the wall clock of a store, such as that of a database, forward by so many milliseconds, or back if they are negative.
pub type SetWallClock = Arc<dyn Fn(i64) -> ClockFuture + Send + Sync>;

/// Completes when the clock shows the new time.
pub type ClockFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A worker id for calls of `claim` that take nothing over; they only make the store notice open intents.
pub const IDLE_CLAIMER: WorkerId = WorkerId(99);

/// An empty store under test, with control of its clocks.
#[derive(Clone)]
pub struct StoreFixture {
    /// The store under test.
    pub locks: Arc<dyn LockRepo>,
    /// The same store.
    pub history: Arc<dyn LockHistory>,
    /// Advances the monotonic clock that measures leases.
    pub advance_time: AdvanceTime,
    /// Sets the wall clock of the store, if it has one. Shifting the times that it has stored has the same effect.
    pub set_wall_clock: SetWallClock,
}

impl StoreFixture {
    /// A store whose monotonic clock is advanced by `advance_time`, and that has no wall clock.
    pub fn new<R>(repo: Arc<R>, advance_time: impl Fn(Duration) + Send + Sync + 'static) -> Self
    where
        R: LockRepo + LockHistory + 'static,
    {
        let advance_time = move |span| -> ClockFuture {
            advance_time(span);
            Box::pin(std::future::ready(()))
        };
        Self {
            locks: repo.clone(),
            history: repo,
            advance_time: Arc::new(advance_time),
            set_wall_clock: Arc::new(|_| Box::pin(std::future::ready(()))),
        }
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

    /// Lets the store read all open intents, and lets their leases end.
    pub(super) async fn end_leases(&self) {
        // A store may use what it read up to 250 ms ago.
        (self.advance_time)(Duration::from_secs(1)).await;
        let claimed = self.locks.claim(IDLE_CLAIMER, LEASE).await;
        assert_eq!(claimed, Ok(None), "no lease has ended");
        (self.advance_time)(LEASE).await;
    }

    pub(super) async fn load(&self, id: u64) -> LockSnapshot {
        let loaded = self.locks.load(lock_id(id)).await;
        loaded.expect("the store answers").expect("the lock exists")
    }

    /// Imports a sample lock.
    pub(super) async fn with_lock(&self, id: u64) -> LockSnapshot {
        let imported = self.history.import(vec![created(lock_id(id))]).await;
        imported.expect("the lock is imported");
        self.load(id).await
    }

    /// Saves a prepared write.
    pub(super) async fn prepare(&self, lock: u64, write: u128) -> Write {
        let (write, save) = prepared(&self.load(lock).await, write, slot("key", Some(2)));
        self.locks.save(save).await.expect("the intent is saved");
        write
    }

    /// Saves a write that the shadow has accepted.
    pub(super) async fn send(&self, lock: u64, write: u128) -> Write {
        let prepared = self.prepare(lock, write).await;
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let (sent, save) =
            policy::commit(&snapshot, &prepared, ShadowVersion(5), &[], &limits, NOW);
        self.locks.save(save).await.expect("the commit is saved");
        sent
    }

    /// Saves the end of a prepared write that the shadow has refused.
    pub(super) async fn abort(&self, lock: u64, prepared: &Write) {
        let snapshot = self.load(lock).await;
        let save = policy::abort(&snapshot, prepared, &FailureReason::Throttled, None, NOW);
        self.locks.save(save).await.expect("the abort is saved");
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
        self.locks.save(save).await.expect("the report is saved");
        *after
    }

    pub(super) async fn events(&self, lock: u64) -> Vec<RecordedEvent> {
        self.history
            .events(lock_id(lock), LockVersion(1), 1000)
            .await
            .expect("the store answers")
    }

    pub(super) async fn stored(&self, id: u128) -> Option<Write> {
        let stored = self.history.write(WriteId::from_u128(id)).await;
        stored.expect("the store answers")
    }

    pub(super) async fn due(&self, until: Timestamp, limit: usize) -> Vec<WriteId> {
        let due = self.history.due(until, None, limit).await;
        let due = due.expect("the store answers").into_iter();
        due.map(|write| write.id).collect()
    }
}
