//! The tasks of a runner over stores and shadows in memory. Time is paused: pauses end when nothing else can run.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::decorator::{FaultInjector, FaultPlan, FaultyLockRepo};
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_adapters::time::{SystemIds, TokioTimer};
use keywright_domain::model::{
    ClientToken, DeviceOutcome, DeviceReport, DeviceResult, LockId, LoggedEvent, Position,
    ReportedSlot, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName, WriteId,
};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::{
    DeviceReports, LockHistory, ReportStreamItem, ReportsClosed, ShadowError, ShadowPort,
};
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings};
use keywright_runner::{
    EventHint, EventPublisher, Pacing, PublishError, Runner, RunnerEvent, RunningTasks,
};
use keywright_testkit::ManualClock;
use keywright_testkit::samples::{NOW, created, lock_id, principal, slot, thing};
use tokio::sync::{Semaphore, mpsc};

/// A shadow whose calls can be held back.
struct HeldShadow {
    inner: InMemoryShadow,
    /// The things whose calls wait for a permit of `gate`.
    held: Mutex<HashSet<ThingName>>,
    gate: Semaphore,
    /// One reference is kept here, and one by each read in progress.
    reading: Arc<()>,
    max_reading: AtomicUsize,
}

impl HeldShadow {
    fn hold(&self, lock: LockId) {
        self.held.lock().expect("no panic").insert(thing(lock));
    }

    async fn pass(&self, thing: &ThingName) {
        if self.held.lock().expect("no panic").contains(thing) {
            self.gate.acquire().await.expect("open").forget();
        }
    }
}

#[async_trait]
impl ShadowPort for HeldShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.pass(thing).await;
        self.inner.update(thing, change).await
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let reading = Arc::strong_count(&self.reading);
        self.max_reading.fetch_max(reading, Ordering::SeqCst);
        // Dropped when the read ends or is given up.
        let _reading = self.reading.clone();
        self.pass(thing).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.inner.read(thing, token).await
    }
}

/// A stream that ends when its sender is dropped.
struct Stream(tokio::sync::Mutex<mpsc::Receiver<ReportStreamItem>>);

#[async_trait]
impl DeviceReports for Stream {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        self.0.lock().await.recv().await.ok_or(ReportsClosed)
    }
}

/// A bus that keeps events in memory, and fails for a while.
#[derive(Clone, Default)]
struct Bus {
    events: Arc<Mutex<Vec<LoggedEvent>>>,
    /// How often publishing still fails after the events have arrived.
    failures: Arc<AtomicUsize>,
    /// Whether publishing never ends.
    hangs: bool,
    /// How often the position was asked for.
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl EventPublisher for Bus {
    async fn position(&self) -> Result<Position, PublishError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let events = self.events.lock().expect("no panic");
        let last = events.last().map_or(Position::START, |e| e.position);
        // The last event may not have been acknowledged.
        Ok(Position(last.0.saturating_sub(1)))
    }

    async fn publish(&self, events: &[LoggedEvent]) -> Result<(), PublishError> {
        self.events
            .lock()
            .expect("no panic")
            .extend_from_slice(events);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let fail = |n: usize| n.checked_sub(1);
        match self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail)
        {
            Ok(_) => Err("the bus does not answer".into()),
            Err(_) => Ok(()),
        }
    }
}

impl Bus {
    /// The versions of the events of a lock, without repetitions.
    fn versions(&self, lock: u64) -> Vec<u64> {
        let events = self.events.lock().expect("no panic");
        let of_lock = events.iter().filter(|e| e.event.lock == lock_id(lock));
        let mut versions: Vec<u64> = of_lock.map(|e| e.event.version.0).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

struct Fixture {
    writes: Arc<KeyWrites>,
    store: Arc<InMemoryLockRepo>,
    shadow: Arc<HeldShadow>,
    faults: FaultInjector,
    clock: ManualClock,
    reports: mpsc::Sender<ReportStreamItem>,
    stream: Arc<dyn DeviceReports>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    async fn with_locks(count: u64) -> Self {
        let timer = Arc::new(TokioTimer::default());
        let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
        let (faults, clock) = (FaultInjector::default(), ManualClock::at(NOW));
        let shadow = Arc::new(HeldShadow {
            inner: InMemoryShadow::of_this_process(),
            held: Mutex::default(),
            gate: Semaphore::new(0),
            reading: Arc::default(),
            max_reading: AtomicUsize::new(0),
        });
        let ports = Ports {
            locks: Arc::new(FaultyLockRepo::new(store.clone(), faults.clone())),
            history: store.clone(),
            shadow: shadow.clone(),
            clock: Arc::new(clock.clone()),
            timer,
            ids: Arc::new(SystemIds),
        };
        for lock in 1..=count {
            let imported = store.import(vec![created(lock_id(lock))]).await;
            imported.expect("imported");
        }
        let (reports, stream) = mpsc::channel(8);
        let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
        Self {
            writes: Arc::new(writes),
            store,
            shadow,
            faults,
            clock,
            reports,
            stream: Arc::new(Stream(tokio::sync::Mutex::new(stream))),
            events: Arc::default(),
        }
    }

    /// A runner whose events are kept.
    fn runner(&self) -> Runner {
        let events = self.events.clone();
        Runner::new(self.writes.clone(), |task| drop(tokio::spawn(task))).observer(move |event| {
            events.lock().expect("no panic").push(event.to_string());
        })
    }

    fn start(&self) -> RunningTasks {
        self.start_with(self.runner())
    }

    fn start_with(&self, runner: Runner) -> RunningTasks {
        runner.start(vec![self.stream.clone()])
    }

    async fn write(&self, lock: u64) -> WriteId {
        self.write_to(lock, 2).await
    }

    /// Writes a key to a slot of a lock. Returns the write.
    async fn write_to(&self, lock: u64, index: u64) -> WriteId {
        let command = WriteKey {
            lock: lock_id(lock),
            slot: slot("k", Some(index)),
        };
        let principal = principal();
        let written = self
            .writes
            .write_key(&command, &principal, RequestOptions::default());
        written.await.expect("written").write
    }

    /// Writes a result to the shadow of a lock, as the lock does, without a report of it.
    async fn succeed(&self, lock: u64, write: WriteId) {
        let result = format!(r#"{{"{write}":{{"status":"SUCCEEDED","keyIndexNumber":2}}}}"#);
        let body = format!(r#"{{"state":{{"reported":{{"writeKeyResult":{result}}}}}}}"#);
        let name = keywright_shadow::ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into());
        let service = self.shadow.inner.service();
        let thing = thing(lock_id(lock));
        let updated = service.update(thing.as_str(), &name, body.as_bytes()).await;
        updated.expect("accepted");
    }

    /// Reports a success on the stream. The receiver learns whether it was acknowledged: its sender is dropped otherwise.
    async fn report(&self, lock: u64, write: WriteId) -> tokio::sync::oneshot::Receiver<()> {
        let report = DeviceReport {
            thing: thing(lock_id(lock)),
            shadow_version: None,
            results: vec![DeviceResult {
                write,
                outcome: DeviceOutcome::Succeeded {
                    slot: ReportedSlot::Missing,
                },
            }],
            entries: Vec::new(),
        };
        let (tx, rx) = tokio::sync::oneshot::channel();
        let acknowledge = Box::new(move || {
            let _ = tx.send(());
        });
        let item = ReportStreamItem::Report(report, acknowledge);
        assert!(self.reports.send(item).await.is_ok(), "the stream is open");
        rx
    }

    async fn state(&self, write: WriteId) -> &'static str {
        let found = self.store.write(write).await.expect("read");
        found.expect("a write").state.name()
    }

    async fn wait_for_state(&self, write: WriteId, state: &str) {
        // Only a failing test waits for an hour, whose time is paused.
        for _ in 0..36_000 {
            if self.state(write).await == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the write is not {state} but {}", self.state(write).await);
    }

    fn fail_saves(&self, plan: &str) {
        let plan: FaultPlan = plan.parse().expect("a plan");
        self.faults.set(plan);
    }

    fn has_event(&self, text: &str) -> bool {
        let events = self.events.lock().expect("no panic");
        events.iter().any(|event| event.contains(text))
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_nobody_reported_are_found_after_the_start() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    fixture.succeed(1, write).await;
    let _runner = fixture.start();
    fixture.wait_for_state(write, "SUCCEEDED").await;
}

#[tokio::test(start_paused = true)]
async fn results_that_nobody_reported_are_found_when_a_stream_resumes() {
    let fixture = Fixture::with_locks(1).await;
    let _runner = fixture.start();
    let write = fixture.write(1).await;
    fixture.succeed(1, write).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fixture.state(write).await, "SENT", "nothing is due yet");
    let resumed = fixture.reports.send(ReportStreamItem::Resumed).await;
    assert!(resumed.is_ok(), "the stream is open");
    fixture.wait_for_state(write, "SUCCEEDED").await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_settled_until_the_store_answers_and_acknowledged_then() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    let _runner = fixture.start();
    fixture.fail_saves("save@1-5=refuse");
    let acknowledged = fixture.report(1, write).await;
    acknowledged.await.expect("acknowledged");
    assert_eq!(fixture.state(write).await, "SUCCEEDED");
    assert!(fixture.has_event("a report could not be settled"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_an_unsettled_report_unacknowledged() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    let runner = fixture.start();
    fixture.fail_saves("save@1-=refuse");
    let acknowledged = fixture.report(1, write).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    runner.stop().await;
    assert!(acknowledged.await.is_err());
    assert_eq!(fixture.state(write).await, "SENT");
}

#[tokio::test(start_paused = true)]
async fn an_intent_is_recovered_after_its_lease() {
    let fixture = Fixture::with_locks(1).await;
    let _runner = fixture.start();
    fixture.write_to(1, 2).await;
    fixture.shadow.hold(lock_id(1));
    let interrupted = tokio::time::timeout(Duration::from_millis(10), fixture.write_to(1, 3)).await;
    assert!(interrupted.is_err(), "the shadow does not answer");
    fixture.shadow.held.lock().expect("no panic").clear();
    // A step of the wall clock does not matter.
    fixture.clock.set(NOW.before(Duration::from_secs(3600)));
    tokio::time::sleep(Settings::default().lease + Duration::from_secs(5)).await;
    assert!(fixture.has_event("and recovered"));
    let backlog = fixture.writes.backlog().await.expect("counted");
    assert_eq!(backlog.intents, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_shadow_does_not_answer_delays_no_other() {
    let fixture = Fixture::with_locks(2).await;
    let (slow, fast) = (fixture.write(1).await, fixture.write(2).await);
    fixture.succeed(1, slow).await;
    fixture.succeed(2, fast).await;
    fixture.shadow.hold(lock_id(1));
    let mut pacing = Pacing::default();
    pacing.maintained_locks = 2;
    let _runner = fixture.start_with(fixture.runner().pacing(pacing));
    fixture.wait_for_state(fast, "SUCCEEDED").await;
    assert_eq!(fixture.state(slow).await, "SENT");
    // The shadow answers later, and the write is tried until then.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(fixture.has_event("open writes are not reconciled yet: 1"));
    fixture.shadow.held.lock().expect("no panic").clear();
    fixture.wait_for_state(slow, "SUCCEEDED").await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_being_maintained_is_skipped() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    fixture.succeed(1, write).await;
    fixture.shadow.hold(lock_id(1));
    let _runner = fixture.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(Arc::strong_count(&fixture.shadow.reading), 2, "it is read");
    // The write is due, and its lock is still being reconciled.
    fixture.clock.advance(Duration::from_secs(120));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fixture.shadow.max_reading.load(Ordering::SeqCst), 1);
    fixture.shadow.gate.add_permits(100);
    fixture.wait_for_state(write, "SUCCEEDED").await;
}

#[tokio::test(start_paused = true)]
async fn no_more_locks_are_maintained_at_once_than_configured() {
    let fixture = Fixture::with_locks(9).await;
    for lock in 1..=9 {
        fixture.write(lock).await;
    }
    let mut pacing = Pacing::default();
    pacing.maintained_locks = 3;
    let _runner = fixture.start_with(fixture.runner().pacing(pacing));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fixture.shadow.max_reading.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn writes_are_maintained_at_the_configured_rate() {
    let fixture = Fixture::with_locks(9).await;
    for lock in 1..=9 {
        fixture.write(lock).await;
    }
    let mut pacing = Pacing::default();
    pacing.maintenance_interval = Duration::from_secs(10);
    let _runner = fixture.start_with(fixture.runner().pacing(pacing));
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(fixture.shadow.max_reading.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_in_progress() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    fixture.succeed(1, write).await;
    fixture.shadow.hold(lock_id(1));
    let runner = fixture.start();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let early = tokio::time::timeout(Duration::from_millis(500), runner.stop()).await;
    assert!(early.is_err(), "the shadow is still being read");
    fixture.shadow.gate.add_permits(100);
    runner.stop().await;
    assert_eq!(fixture.state(write).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_is_a_failure_with_the_name_of_its_task() {
    let mut fixture = Fixture::with_locks(1).await;
    let runner = fixture.start();
    let running = tokio::time::timeout(Duration::from_secs(60), runner.failure()).await;
    assert!(running.is_err(), "nothing has failed");
    fixture.reports = mpsc::channel(1).0;
    assert_eq!(runner.failure().await, "the settlement of reports");
    assert!(fixture.has_event("a stream of reports has ended"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_loop_is_a_failure_and_one_in_a_job_is_not() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    let panics = fixture.events.clone();
    let runner = fixture.runner().observer(move |event| match event {
        RunnerEvent::Settled(..) | RunnerEvent::ReportsEnded => panic!("of the observer"),
        other => panics.lock().expect("no panic").push(other.to_string()),
    });
    let runner = fixture.start_with(runner);
    let acknowledged = fixture.report(1, write).await;
    assert!(acknowledged.await.is_err());
    assert!(fixture.has_event("the settlement of a report has panicked"));
    let running = tokio::time::timeout(Duration::from_secs(1), runner.failure()).await;
    assert!(running.is_err(), "a job is no loop");
    drop(fixture.reports);
    assert_eq!(runner.failure().await, "the settlement of reports");
}

#[tokio::test(start_paused = true)]
async fn events_are_published_until_the_bus_accepts_them() {
    let fixture = Fixture::with_locks(2).await;
    fixture.write(1).await;
    let bus = Bus::default();
    bus.failures.store(5, Ordering::SeqCst);
    let publishing = fixture
        .runner()
        .publish_events(bus.clone(), EventHint::default());
    let runner = fixture.start_with(publishing);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((bus.versions(1), bus.versions(2)), (vec![1, 2], vec![1]));
    assert!(fixture.has_event("events could not be published: the bus does not answer"));
    fixture.write(2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bus.versions(2), [1, 2]);
    runner.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_makes_every_publisher_publish_at_once() {
    let fixture = Fixture::with_locks(1).await;
    let (buses, hint) = ([Bus::default(), Bus::default()], EventHint::default());
    let mut pacing = Pacing::default();
    pacing.period = Duration::from_secs(3600);
    let mut publishing = fixture.runner().pacing(pacing);
    for bus in &buses {
        publishing = publishing.publish_events(bus.clone(), hint.clone());
    }
    let _runner = fixture.start_with(publishing);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.write(1).await;
    for (hinted, versions) in [(false, vec![1]), (true, vec![1, 2])] {
        if hinted {
            hint.notify();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        for bus in &buses {
            assert_eq!(bus.versions(1), versions, "hinted: {hinted}");
            assert_eq!(bus.asked.load(Ordering::SeqCst), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_bus_that_does_not_answer() {
    let fixture = Fixture::with_locks(1).await;
    let bus = Bus {
        hangs: true,
        ..Bus::default()
    };
    let publishing = fixture.runner().publish_events(bus, EventHint::default());
    let runner = fixture.start_with(publishing);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = tokio::time::timeout(Duration::from_secs(1), runner.stop()).await;
    assert!(stopped.is_ok());
}

#[tokio::test(start_paused = true)]
async fn pacing_out_of_bounds_is_bounded() {
    let fixture = Fixture::with_locks(1).await;
    let write = fixture.write(1).await;
    fixture.succeed(1, write).await;
    let mut pacing = Pacing::default();
    pacing.maintained_locks = 0;
    pacing.settlements = usize::MAX;
    pacing.page = 0;
    pacing.period = Duration::ZERO;
    let runner = fixture.start_with(fixture.runner().pacing(pacing));
    fixture.wait_for_state(write, "SUCCEEDED").await;
    runner.stop().await;
}
