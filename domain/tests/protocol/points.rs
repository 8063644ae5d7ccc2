//! A process stops at one point of the protocol, for each of its points: it dies there and others find what it left, or
//! it wakes up when others have taken over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::lock::LockSnapshot;
use keywright_domain::ports::*;
use keywright_domain::rules::WriteKey;
use keywright_domain::values::*;
use keywright_domain::write::{Owner, Write};
use keywright_domain::{KeyWrites, Ports, Settings, WriteError, Written};
use keywright_testkit::samples::{lock_id, principal, slot};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

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

/// A process stops at this point until it is told to go on.
struct Point {
    call: Call,
    at: At,
    saves: AtomicU64,
    reached: Notify,
    on: Notify,
}

impl Point {
    async fn pass(&self, call: Call, at: At) {
        if (self.call, self.at) == (call, at) {
            self.reached.notify_one();
            self.on.notified().await;
        }
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
        let earlier = self.point.saves.fetch_add(1, Ordering::Relaxed);
        let call = Call::Save(earlier + 1);
        self.point.pass(call, At::Before).await;
        let answer = self.inner.save(save).await;
        self.point.pass(call, At::After).await;
        answer
    }

    async fn claim(&self, owner: Owner, lease: Duration) -> Result<Option<Write>, RepoError> {
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
        let call = match change.put {
            Some(_) => Call::Put,
            None => Call::Fence,
        };
        self.point.pass(call, At::Before).await;
        let answer = self.inner.update(thing, change).await;
        self.point.pass(call, At::After).await;
        answer
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.inner.read(thing, token).await
    }
}

type Answer = Result<Written, WriteError>;

/// A world, and a process in it that has stopped at a point while it writes a key.
struct Stopped {
    world: World,
    point: Arc<Point>,
    writes: Arc<KeyWrites>,
    request: JoinHandle<Answer>,
}

fn stop_at(world: &World, call: Call, at: At) -> (Arc<KeyWrites>, Arc<Point>) {
    let point = Arc::new(Point {
        call,
        at,
        saves: AtomicU64::new(0),
        reached: Notify::new(),
        on: Notify::new(),
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
        ..world.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("the defaults are valid");
    (Arc::new(writes), point)
}

async fn write(writes: Arc<KeyWrites>) -> Answer {
    let command = WriteKey {
        lock: lock_id(LOCK),
        slot: slot("key", Some(2)),
    };
    writes.write_key(&command, &principal()).await
}

impl Stopped {
    async fn at(call: Call, at: At) -> Self {
        let world = World::new().await;
        // The shadow is there, and its version is known.
        world.write("first", Some(0)).await.expect("written");
        let (writes, point) = stop_at(&world, call, at);
        let request = tokio::spawn(write(writes.clone()));
        point.reached.notified().await;
        Self {
            world,
            point,
            writes,
            request,
        }
    }

    /// The process dies, and another one recovers what it left.
    async fn dies(self) -> World {
        self.request.abort();
        let mut world = self.world;
        world.restart();
        world.recover().await;
        world
    }
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

#[tokio::test(start_paused = true)]
async fn before_the_intent_it_dies() {
    let world = Stopped::at(Call::Save(1), At::Before).await.dies().await;
    assert_eq!(outcome(&world).await, None);
}

#[tokio::test(start_paused = true)]
async fn after_the_intent_it_dies() {
    let world = Stopped::at(Call::Save(1), At::After).await.dies().await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
}

#[tokio::test(start_paused = true)]
async fn half_sent_it_dies_and_the_rest_arrives_when_others_have_decided() {
    let stopped = Stopped::at(Call::Put, At::Before).await;
    // What is half sent goes on without its process.
    let Stopped { world, point, .. } = &stopped;
    let (before, late) = (world.shadow(), point.clone());
    let mut world_after = world.clone();
    world_after.restart();
    world_after.recover().await;
    assert_eq!(outcome(&world_after).await, Some("ABORTED"));
    assert_ne!(world_after.shadow(), before, "it is fenced");
    late.on.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stopped.request.abort();
    assert_eq!(outcome(&world_after).await, Some("ABORTED"));
}

#[tokio::test(start_paused = true)]
async fn applied_and_the_answer_is_lost_with_the_process() {
    let world = Stopped::at(Call::Put, At::After).await.dies().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

#[tokio::test(start_paused = true)]
async fn accepted_and_not_committed_it_dies() {
    let world = Stopped::at(Call::Save(2), At::Before).await.dies().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

#[tokio::test(start_paused = true)]
async fn during_the_commit_it_stops_and_the_commit_arrives_after_a_take_over() {
    let stopped = Stopped::at(Call::Save(2), At::Before).await;
    let mut world = stopped.world.clone();
    world.restart();
    world.recover().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
    let names = world.names().await;
    stopped.point.on.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, names, "a commit counts once");
    assert_eq!(outcome(&world).await, Some("SENT"));
}

#[tokio::test(start_paused = true)]
async fn after_the_commit_it_dies() {
    let world = Stopped::at(Call::Save(2), At::After).await.dies().await;
    assert_eq!(outcome(&world).await, Some("SENT"));
}

#[tokio::test(start_paused = true)]
async fn the_commit_s_answer_is_lost() {
    use keywright_adapters::layer::Fault;
    let world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    world.trouble_at([&[], &[]], [&[Fault::Pass, Fault::DropAnswer], &[]]);
    world
        .write("key", Some(2))
        .await
        .expect("it is found to be committed");
    assert_eq!(outcome(&world).await, Some("SENT"));
}

#[tokio::test(start_paused = true)]
async fn the_store_is_down_after_the_update_was_accepted() {
    use keywright_adapters::layer::Fault;
    let mut world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
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

#[tokio::test(start_paused = true)]
async fn refused_and_not_aborted_it_dies() {
    use keywright_adapters::layer::Fault;
    let mut world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    world.trouble_at([&[Fault::Refuse], &[]], [&[], &[]]);
    let (writes, point) = stop_at(&world, Call::Save(2), At::Before);
    let request = tokio::spawn(write(writes));
    point.reached.notified().await;
    request.abort();
    world.no_trouble();
    world.restart();
    world.recover().await;
    assert_eq!(outcome(&world).await, Some("ABORTED"));
}

#[tokio::test(start_paused = true)]
async fn during_recovery_the_recoverer_dies() {
    for at in [At::Before, At::After] {
        let mut world = Stopped::at(Call::Save(1), At::After).await;
        world.request.abort();
        let (recoverer, point) = stop_at(&world.world, Call::Fence, at);
        tokio::time::sleep(world.writes.settings().lease).await;
        let recovering = tokio::spawn(async move { recoverer.recover_next().await });
        point.reached.notified().await;
        recovering.abort();
        world.world.restart();
        world.world.recover().await;
        assert_eq!(outcome(&world.world).await, Some("ABORTED"), "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombie_wakes_up_after_a_take_over() {
    for (call, at, fate) in [
        (Call::Save(1), At::After, "ABORTED"),
        (Call::Put, At::Before, "ABORTED"),
        (Call::Put, At::After, "SENT"),
        (Call::Save(2), At::Before, "SENT"),
    ] {
        let stopped = Stopped::at(call, at).await;
        let mut world = stopped.world.clone();
        world.restart();
        world.recover().await;
        assert_eq!(outcome(&world).await, Some(fate), "{call:?} {at:?}");
        stopped.point.on.notify_one();
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
