//! A process stops at one point of the protocol, for each of its points: it dies there and others find what it left, or
//! it wakes up when others have taken over. Each point has something broken beside it, which its test must notice.

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

use crate::broken::Broken;
use crate::world::{LOCK, World};

/// Where a process stops, at the first call of that kind that is counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// The n-th save: the first one is the intent, the second one closes it.
    Save(u64),
    Put,
    Fence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Before,
    After,
}

/// A process stops at this point, with all its timers, until it is told to go on. What it has sent by then goes on
/// without it.
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
            self.going().await;
        }
    }

    async fn reached(&self) {
        let mut stopped = self.stopped.subscribe();
        drop(stopped.wait_for(|stopped| *stopped).await);
    }

    async fn going(&self) {
        let mut stopped = self.stopped.subscribe();
        drop(stopped.wait_for(|stopped| !*stopped).await);
    }

    fn go_on(&self) {
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

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(owner, lease).await
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
        self.point.going().await;
    }
}

type Answer = Result<WriteReceipt, WriteError>;

/// A world, and a process in it that has stopped at a point while it writes a key.
struct Stopped {
    world: World,
    point: Arc<Point>,
    writes: Arc<KeyWrites>,
    request: JoinHandle<Answer>,
}

fn stop_at(world: &World, broken: Broken, call: Call, at: At) -> (Arc<KeyWrites>, Arc<Point>) {
    let point = Arc::new(Point {
        call,
        at,
        saves: AtomicU64::new(0),
        stopped: watch::Sender::new(false),
    });
    let ports = Ports {
        locks: Arc::new(Stopping::<dyn LockRepo> {
            inner: world.ports.locks.clone(),
            point: point.clone(),
        }),
        shadow: Arc::new(Stopping::<dyn ShadowPort> {
            inner: world.ports.shadow.clone(),
            point: point.clone(),
        }),
        timer: Arc::new(Stopping::<dyn Timer> {
            inner: world.ports.timer.clone(),
            point: point.clone(),
        }),
        ..world.ports.clone()
    };
    let ports = broken.process(&ports);
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
        let world = world(broken).await;
        let (writes, point) = stop_at(&world, broken, call, at);
        let request = tokio::spawn(write(writes.clone()));
        point.reached().await;
        Self {
            world,
            point,
            writes,
            request,
        }
    }

    /// The process dies, and another one recovers what it left; what it had sent has not arrived yet.
    async fn dies(self) -> World {
        self.request.abort();
        let mut world = self.world;
        world.restart();
        world.recover().await;
        world
    }
}

/// A world in which the shadow is there and its version known, and from then on something is broken.
async fn world(broken: Broken) -> World {
    let mut world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    world.ports = broken.world(&world.ports);
    world.restart();
    world
}

/// What became of the write of `key`: nothing, or the name of its state.
async fn outcome(world: &World) -> Option<&'static str> {
    world.check(&[]).await;
    world.check_at_rest().await;
    let stream = world.stream().await;
    let requested = stream
        .iter()
        .filter(|e| e.event.name() == "KeyWriteRequested");
    let mut states = Vec::new();
    // Ids are counted up, and a few of them are for other purposes.
    for id in (1..64).map(WriteId::from_u128) {
        if let Some(write) = world.stored(id).await
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

/// A test for each point, and one that it notices what is broken: by the violation that is named.
macro_rules! points {
    ($($point:ident notices $broken:ident by $violation:literal,)*) => {$(
        mod $point {
            use super::Broken;

            #[tokio::test(start_paused = true)]
            async fn all_is_well() {
                super::$point(Broken::Nothing).await;
            }

            #[tokio::test(start_paused = true)]
            async fn what_is_broken_is_noticed() {
                super::notices(super::$point(Broken::$broken), $violation).await;
            }
        }
    )*};
}

points! {
    before_the_intent_it_dies notices SendsFirst by "I5",
    after_the_intent_it_dies notices NobodyRecovers by "I4",
    half_sent_it_dies_and_the_rest_arrives_when_others_have_decided notices AnyVersion by "I5",
    applied_and_the_answer_is_lost_with_the_process notices BlindReads by "I5",
    accepted_and_not_committed_it_dies notices BlindReads by "I5",
    during_the_commit_it_dies_and_the_commit_arrives_after_a_take_over notices StaleSaves by "a commit counts once",
    after_the_commit_it_dies notices HastyCommit by "I4",
    the_commit_s_answer_is_lost notices TornCommit by "I1",
    the_store_is_down_after_the_update_was_accepted notices BlindReads by "I5",
    refused_and_not_aborted_it_dies notices NobodyRecovers by "I4",
    during_recovery_the_recoverer_dies notices RecoversOnce by "I4",
    a_zombie_wakes_up_after_a_take_over notices AnyVersion by "I5",
}

/// The test of a point fails, and says why.
async fn notices(point: impl Future<Output = ()> + Send + 'static, why: &str) {
    let failure = tokio::spawn(point).await.expect_err("it must fail");
    let said = failure.into_panic();
    let said = said.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains(why), "it failed for another reason: {said}");
}

async fn before_the_intent_it_dies(broken: Broken) {
    let world = Stopped::at(broken, Call::Save(1), At::Before)
        .await
        .dies()
        .await;
    assert_eq!(outcome(&world).await, None);
}

async fn after_the_intent_it_dies(broken: Broken) {
    let world = Stopped::at(broken, Call::Save(1), At::After)
        .await
        .dies()
        .await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
}

async fn half_sent_it_dies_and_the_rest_arrives_when_others_have_decided(broken: Broken) {
    let stopped = Stopped::at(broken, Call::Put, At::Before).await;
    let (before, late) = (stopped.world.shadow(), stopped.point.clone());
    let world = stopped.dies().await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
    assert_ne!(world.shadow(), before, "it is fenced");
    late.go_on();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
}

async fn applied_and_the_answer_is_lost_with_the_process(broken: Broken) {
    let world = Stopped::at(broken, Call::Put, At::After).await.dies().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn accepted_and_not_committed_it_dies(broken: Broken) {
    let world = Stopped::at(broken, Call::Save(2), At::Before)
        .await
        .dies()
        .await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn during_the_commit_it_dies_and_the_commit_arrives_after_a_take_over(broken: Broken) {
    let stopped = Stopped::at(broken, Call::Save(2), At::Before).await;
    let late = stopped.point.clone();
    let world = stopped.dies().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
    let names = world.names().await;
    late.go_on();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, names, "a commit counts once");
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn after_the_commit_it_dies(broken: Broken) {
    let world = Stopped::at(broken, Call::Save(2), At::After)
        .await
        .dies()
        .await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn the_commit_s_answer_is_lost(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let world = world(broken).await;
    world.trouble_at([&[], &[]], [&[Fault::Pass, Fault::DropAnswer], &[]]);
    world
        .write("key", Some(2))
        .await
        .expect("it is found to be committed");
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn the_store_is_down_after_the_update_was_accepted(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let mut world = world(broken).await;
    let mut saves = vec![Fault::Pass];
    saves.extend([Fault::NotSent; 100]);
    world.trouble_at([&[], &[]], [&saves, &[]]);
    let answer = world.write("key", Some(2)).await;
    assert!(
        matches!(answer, Err(WriteError::Undecided(_))),
        "{answer:?}"
    );
    world.no_trouble();
    world.restart();
    world.recover().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

async fn refused_and_not_aborted_it_dies(broken: Broken) {
    use keywright_adapters::decorator::Fault;
    let mut world = world(broken).await;
    world.trouble_at([&[Fault::Refuse], &[]], [&[], &[]]);
    let (writes, point) = stop_at(&world, broken, Call::Save(2), At::Before);
    let request = tokio::spawn(write(writes));
    point.reached().await;
    request.abort();
    world.no_trouble();
    world.restart();
    world.recover().await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
}

async fn during_recovery_the_recoverer_dies(broken: Broken) {
    for at in [At::Before, At::After] {
        let mut world = Stopped::at(broken, Call::Save(1), At::After).await;
        world.request.abort();
        let (recoverer, point) = stop_at(&world.world, broken, Call::Fence, at);
        tokio::time::sleep(world.writes.settings().lease).await;
        let recovering = tokio::spawn(async move { recoverer.recover_next().await });
        point.reached().await;
        recovering.abort();
        world.world.restart();
        world.world.recover().await;
        assert_eq!(outcome(&world.world).await, Some("ABORTED"), "{at:?}");
    }
}

async fn a_zombie_wakes_up_after_a_take_over(broken: Broken) {
    for (call, at, fate) in [
        (Call::Save(1), At::After, "ABORTED"),
        (Call::Put, At::Before, "ABORTED"),
        (Call::Put, At::After, "SENT"),
        (Call::Save(2), At::Before, "SENT"),
    ] {
        let stopped = Stopped::at(broken, call, at).await;
        let mut world = stopped.world.clone();
        world.restart();
        world.recover().await;
        assert_eq!(outcome(&world).await, Some(fate), "{call:?} {at:?}");
        stopped.point.go_on();
        let answer = stopped.request.await.expect("no panic");
        match (&answer, fate) {
            // Its client has long been told that nobody knows.
            (Err(WriteError::Undecided(_)), _) => {}
            (Ok(_), "SENT") => {}
            // Busy: its time was over before it had sent anything.
            (Err(WriteError::NotUpdated(_) | WriteError::Busy { .. }), "ABORTED") => {}
            _ => panic!("{call:?} {at:?}: {fate}, and its client was told {answer:?}"),
        }
        assert_eq!(outcome(&world).await, Some(fate), "{call:?} {at:?}");
    }
}
