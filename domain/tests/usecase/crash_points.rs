//! A process stops at each point of the protocol. It crashes there, and another process recovers the write; or it continues after
//! the take-over. For each point a second test breaks a port and checks that the first one would fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LockSnapshot, WorkerId, Write, *};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::*;
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings, WriteError, WriteReceipt};
use keywright_testkit::samples::{lock_id, principal, slot};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broken_ports::Broken;
use crate::harness::{Faults, Harness, LOCK};

/// The call at which a process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// The n-th save: the first one stores the intent, the second one closes it.
    Save(u64),
    Put,
    Fence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Before,
    After,
}

/// A point at which a process stops, with all its timers, until it is resumed. Requests that it has sent continue without it.
struct Point {
    call: Call,
    at: At,
    saves: AtomicU64,
    stopped: watch::Sender<bool>,
}

impl Point {
    async fn pass(&self, call: Call, at: At) {
        if (self.call, self.at) == (call, at) {
            self.stopped.send_replace(true);
            self.resumed().await;
        }
    }

    async fn reached(&self) {
        let mut stopped = self.stopped.subscribe();
        drop(stopped.wait_for(|stopped| *stopped).await);
    }

    async fn resumed(&self) {
        let mut stopped = self.stopped.subscribe();
        drop(stopped.wait_for(|stopped| !*stopped).await);
    }

    fn resume(&self) {
        self.stopped.send_replace(false);
    }
}

struct Stopping<P: ?Sized> {
    inner: Arc<P>,
    point: Arc<Point>,
}

#[async_trait]
impl LockRepo for Stopping<dyn LockRepo> {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.inner.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let (inner, point) = (self.inner.clone(), self.point.clone());
        let call = Call::Save(point.saves.fetch_add(1, Ordering::Relaxed) + 1);
        let sent = tokio::spawn(async move {
            point.pass(call, At::Before).await;
            let answer = inner.save(save).await;
            point.pass(call, At::After).await;
            answer
        });
        sent.await.expect("no panic")
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(worker, lease).await
    }
}

#[async_trait]
impl ShadowPort for Stopping<dyn ShadowPort> {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let (inner, point, thing) = (self.inner.clone(), self.point.clone(), thing.clone());
        let call = match change.put {
            Some(_) => Call::Put,
            None => Call::Fence,
        };
        let sent = tokio::spawn(async move {
            point.pass(call, At::Before).await;
            let answer = inner.update(&thing, change).await;
            point.pass(call, At::After).await;
            answer
        });
        sent.await.expect("no panic")
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.inner.read(thing, token).await
    }
}

#[async_trait]
impl Timer for Stopping<dyn Timer> {
    fn tick(&self) -> Tick {
        self.inner.tick()
    }

    async fn sleep_until(&self, moment: Tick) {
        self.inner.sleep_until(moment).await;
        self.point.resumed().await;
    }
}

type Answer = Result<WriteReceipt, WriteError>;

/// A process that has stopped at a point while it writes a key.
struct Stopped {
    harness: Harness,
    point: Arc<Point>,
    writes: Arc<KeyWrites>,
    request: JoinHandle<Answer>,
}

fn stop_at(harness: &Harness, broken: Broken, call: Call, at: At) -> (Arc<KeyWrites>, Arc<Point>) {
    let point = Arc::new(Point {
        call,
        at,
        saves: AtomicU64::new(0),
        stopped: watch::Sender::new(false),
    });
    let ports = Ports {
        locks: Arc::new(Stopping::<dyn LockRepo> {
            inner: harness.ports.locks.clone(),
            point: point.clone(),
        }),
        shadow: Arc::new(Stopping::<dyn ShadowPort> {
            inner: harness.ports.shadow.clone(),
            point: point.clone(),
        }),
        timer: Arc::new(Stopping::<dyn Timer> {
            inner: harness.ports.timer.clone(),
            point: point.clone(),
        }),
        ..harness.ports.clone()
    };
    let ports = broken.stopping_process(&ports);
    let writes = KeyWrites::new(ports, Settings::default()).expect("the defaults are valid");
    (Arc::new(writes), point)
}

async fn write(writes: Arc<KeyWrites>) -> Answer {
    let command = WriteKey {
        lock: lock_id(LOCK),
        slot: slot("key", Some(2)),
    };
    writes
        .write_key(&command, &principal(), RequestOptions::default())
        .await
}

impl Stopped {
    async fn at(broken: Broken, call: Call, at: At) -> Self {
        let harness = harness(broken).await;
        let (writes, point) = stop_at(&harness, broken, call, at);
        let request = tokio::spawn(write(writes.clone()));
        point.reached().await;
        Self {
            harness,
            point,
            writes,
            request,
        }
    }

    /// The process crashes, and another one recovers its write. Requests that it has sent have not arrived yet.
    async fn crash(self) -> Harness {
        self.request.abort();
        let mut harness = self.harness;
        harness.restart();
        harness.recover().await;
        harness
    }
}

/// A harness in which the shadow is there and its version known, and from then on something is broken.
async fn harness(broken: Broken) -> Harness {
    let mut harness = Harness::new().await;
    harness.write("first", Some(0)).await.expect("written");
    harness.ports = broken.all_processes(&harness.ports);
    harness.restart();
    harness
}

/// The state of the write of `key`. `None`: there is no such write.
async fn outcome(harness: &Harness) -> Option<&'static str> {
    harness.check(&[]).await;
    harness.check_at_rest().await;
    let stream = harness.stream().await;
    let requested = stream
        .iter()
        .filter(|e| e.event.name() == "KeyWriteRequested");
    let mut states = Vec::new();
    // Ids are sequential, and some of them are not ids of writes.
    for id in (1..64).map(WriteId::from_u128) {
        if let Some(write) = harness.stored(id).await
            && write.slot.key.as_str() == "key"
        {
            states.push(write.state.name());
        }
    }
    assert!(states.len() <= 1, "{states:?}");
    let sent = usize::from(states.first().is_some_and(|state| *state != "ABORTED"));
    assert_eq!(requested.count(), 1 + sent);
    states.pop()
}

/// Two tests for each point: the invariants hold there, and with a broken port the first test fails with the named violation.
macro_rules! points {
    ($($point:ident fails with $broken:ident by $violation:literal,)*) => {$(
        mod $point {
            use super::Broken;

            #[tokio::test(start_paused = true)]
            async fn invariants_hold() {
                super::$point(Broken::Nothing).await;
            }

            #[tokio::test(start_paused = true)]
            async fn fails_with_a_broken_port() {
                super::assert_fails(super::$point(Broken::$broken), $violation).await;
            }
        }
    )*};
}

points! {
    crash_before_the_intent fails with SendsFirst by "I5",
    crash_after_the_intent fails with NoRecovery by "I4",
    crash_before_an_update_that_arrives_after_the_take_over fails with AnyVersion by "I5",
    crash_after_an_applied_update fails with BlindReads by "I5",
    crash_before_the_commit fails with BlindReads by "I5",
    crash_before_a_commit_that_arrives_after_the_take_over fails with StaleSaves by "a commit counts once",
    crash_after_the_commit fails with LostCommit by "I4",
    lost_answer_to_the_commit fails with TornCommit by "I1",
    store_outage_after_an_accepted_update fails with BlindReads by "I5",
    crash_before_the_abort fails with NoRecovery by "I4",
    crash_of_the_recoverer fails with RecoversOnce by "I4",
    stopped_process_continues_after_the_take_over fails with AnyVersion by "I5",
}

/// Expects that the test of a point fails with this message.
async fn assert_fails(point: impl Future<Output = ()> + Send + 'static, violation: &str) {
    let failure = tokio::spawn(point).await.expect_err("the test must fail");
    let panic = failure.into_panic();
    let message = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(
        message.contains(violation),
        "the test failed for another reason: {message}"
    );
}

async fn crash_before_the_intent(broken: Broken) {
    let harness = Stopped::at(broken, Call::Save(1), At::Before)
        .await
        .crash()
        .await;
    assert_eq!(outcome(&harness).await, None);
}

async fn crash_after_the_intent(broken: Broken) {
    let harness = Stopped::at(broken, Call::Save(1), At::After)
        .await
        .crash()
        .await;
    assert_eq!(outcome(&harness).await, Some("ABORTED"));
}

async fn crash_before_an_update_that_arrives_after_the_take_over(broken: Broken) {
    let stopped = Stopped::at(broken, Call::Put, At::Before).await;
    let (before, late) = (stopped.harness.shadow(), stopped.point.clone());
    let harness = stopped.crash().await;
    assert_eq!(outcome(&harness).await, Some("ABORTED"));
    assert_ne!(harness.shadow(), before, "the update is fenced");
    late.resume();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outcome(&harness).await, Some("ABORTED"));
}

async fn crash_after_an_applied_update(broken: Broken) {
    let harness = Stopped::at(broken, Call::Put, At::After)
        .await
        .crash()
        .await;
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn crash_before_the_commit(broken: Broken) {
    let harness = Stopped::at(broken, Call::Save(2), At::Before)
        .await
        .crash()
        .await;
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn crash_before_a_commit_that_arrives_after_the_take_over(broken: Broken) {
    let stopped = Stopped::at(broken, Call::Save(2), At::Before).await;
    let late = stopped.point.clone();
    let harness = stopped.crash().await;
    assert_eq!(outcome(&harness).await, Some("SENT"));
    let names = harness.event_names().await;
    late.resume();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.event_names().await, names, "a commit counts once");
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn crash_after_the_commit(broken: Broken) {
    let harness = Stopped::at(broken, Call::Save(2), At::After)
        .await
        .crash()
        .await;
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn lost_answer_to_the_commit(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let harness = harness(broken).await;
    harness.inject(Faults {
        save: &[Fault::Pass, Fault::DropAnswer],
        ..Faults::default()
    });
    harness
        .write("key", Some(2))
        .await
        .expect("the lock shows that the commit was made");
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn store_outage_after_an_accepted_update(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let mut harness = harness(broken).await;
    let mut saves = vec![Fault::Pass];
    saves.extend([Fault::NotSent; 100]);
    harness.inject(Faults {
        save: &saves,
        ..Faults::default()
    });
    let answer = harness.write("key", Some(2)).await;
    assert!(
        matches!(answer, Err(WriteError::Undecided(_))),
        "{answer:?}"
    );
    harness.end_faults();
    harness.restart();
    harness.recover().await;
    assert_eq!(outcome(&harness).await, Some("SENT"));
}

async fn crash_before_the_abort(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let mut harness = harness(broken).await;
    harness.inject(Faults {
        update: &[Fault::Refuse],
        ..Faults::default()
    });
    let (writes, point) = stop_at(&harness, broken, Call::Save(2), At::Before);
    let request = tokio::spawn(write(writes));
    point.reached().await;
    request.abort();
    harness.end_faults();
    harness.restart();
    harness.recover().await;
    assert_eq!(outcome(&harness).await, Some("ABORTED"));
}

async fn crash_of_the_recoverer(broken: Broken) {
    for at in [At::Before, At::After] {
        let mut harness = Stopped::at(broken, Call::Save(1), At::After).await;
        harness.request.abort();
        let (recoverer, point) = stop_at(&harness.harness, broken, Call::Fence, at);
        tokio::time::sleep(harness.writes.settings().lease).await;
        let recovering = tokio::spawn(async move { recoverer.recover_next().await });
        point.reached().await;
        recovering.abort();
        harness.harness.restart();
        harness.harness.recover().await;
        assert_eq!(outcome(&harness.harness).await, Some("ABORTED"), "{at:?}");
    }
}

async fn stopped_process_continues_after_the_take_over(broken: Broken) {
    for (call, at, state) in [
        (Call::Save(1), At::After, "ABORTED"),
        (Call::Put, At::Before, "ABORTED"),
        (Call::Put, At::After, "SENT"),
        (Call::Save(2), At::Before, "SENT"),
    ] {
        let stopped = Stopped::at(broken, call, at).await;
        let mut harness = stopped.harness.clone();
        harness.restart();
        harness.recover().await;
        assert_eq!(outcome(&harness).await, Some(state), "{call:?} {at:?}");
        stopped.point.resume();
        let answer = stopped.request.await.expect("no panic");
        match (&answer, state) {
            // The deadline of the request has passed.
            (Err(WriteError::Undecided(_)), _) => {}
            (Ok(_), "SENT") => {}
            // Busy: the deadline passed before the update was sent.
            (Err(WriteError::NotUpdated(_) | WriteError::Busy { .. }), "ABORTED") => {}
            _ => panic!("{call:?} {at:?}: {state}, and its client was told {answer:?}"),
        }
        assert_eq!(outcome(&harness).await, Some(state), "{call:?} {at:?}");
    }
}
