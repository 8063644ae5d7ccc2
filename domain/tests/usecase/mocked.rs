//! Where one error must be injected, or a call must not happen.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{Identity, LockSnapshot, Principal, WorkerId, Write, *};
use keywright_domain::policy::{Rejection, WriteKey};
use keywright_domain::ports::*;
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings, WriteError};
use keywright_testkit::samples::{lock_id, principal, slot};
use mockall::mock;

use crate::world::{LOCK, World};

mock! {
    Shadow {}

    #[async_trait]
    impl ShadowPort for Shadow {
        async fn update(&self, thing: &ThingName, change: ShadowChange) -> Result<ShadowVersion, ShadowError>;
        async fn read(&self, thing: &ThingName, token: ClientToken) -> Result<Option<ShadowSnapshot>, ShadowError>;
    }
}

fn with_shadow(world: &World, shadow: MockShadow) -> KeyWrites {
    let ports = Ports {
        shadow: Arc::new(shadow),
        ..world.ports.clone()
    };
    KeyWrites::new(ports, Settings::default()).expect("the defaults are valid")
}

fn command(key: &str, index: Option<u64>) -> WriteKey {
    WriteKey {
        lock: lock_id(LOCK),
        slot: slot(key, index),
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_write_never_calls_the_shadow() {
    let world = World::new().await;
    let mut shadow = MockShadow::new();
    shadow.expect_update().never();
    shadow.expect_read().never();
    let writes = with_shadow(&world, shadow);
    let stranger = Principal::of(Identity::User(
        UserId::new("a-stranger").expect("a user id"),
    ));
    let before = world.lock().await;
    for (command, principal, rejection) in [
        (
            WriteKey {
                lock: lock_id(404),
                slot: slot("key", None),
            },
            principal(),
            Rejection::LockNotFound,
        ),
        (command("key", None), stranger, Rejection::Forbidden),
        (
            command("key", Some(100)),
            principal(),
            Rejection::IndexBeyondCapacity { capacity: 100 },
        ),
    ] {
        let answer = writes
            .write_key(&command, &principal, RequestOptions::default())
            .await;
        assert_eq!(answer, Err(WriteError::Rejected(rejection)));
    }
    assert_eq!(world.lock().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_write_never_calls_the_shadow() {
    let world = World::new().await;
    world.write("key", Some(2)).await.expect("written");
    let mut shadow = MockShadow::new();
    shadow.expect_update().never();
    shadow.expect_read().never();
    let answer = with_shadow(&world, shadow)
        .write_key(
            &command("key", Some(2)),
            &principal(),
            RequestOptions::default(),
        )
        .await;
    assert_eq!(answer.expect("nothing new").event, None);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_never_answers_ends_in_undecided_by_the_deadline() {
    let world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    let writes = with_shadow(&world, {
        let mut shadow = MockShadow::new();
        shadow
            .expect_update()
            .returning(|_, _| Err(ShadowError::Unknown("injected".into())));
        shadow
            .expect_read()
            .returning(|_, _| Err(ShadowError::Unknown("injected".into())));
        shadow
    });
    let start = tokio::time::Instant::now();
    let answer = writes
        .write_key(
            &command("key", Some(2)),
            &principal(),
            RequestOptions::default(),
        )
        .await;
    assert!(
        matches!(answer, Err(WriteError::Undecided(_))),
        "{answer:?}"
    );
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// A store whose loads let everyone else run first, so that two use cases meet in the middle.
struct Interleaved(Arc<dyn LockRepo>);

#[async_trait]
impl LockRepo for Interleaved {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        tokio::task::yield_now().await;
        self.0.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        self.0.save(save).await
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(owner, lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_copies_of_a_late_report_at_once_are_recorded_once() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    world.withdraw(written.write).await.expect("withdrawn");
    let report = world.report(written.write, crate::world::succeeded()).await;
    let locks = Arc::new(Interleaved(world.ports.locks.clone()));
    let ports = Ports {
        locks,
        ..world.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("the defaults are valid");
    let (one, two) = tokio::join!(writes.settle(&report), writes.settle(&report));
    assert!(one.is_ok() && two.is_ok());
    let confirmed = world
        .names()
        .await
        .iter()
        .filter(|n| **n == "KeyWriteConfirmed")
        .count();
    assert_eq!(confirmed, 1);
    world.check(&[]).await;
}

/// A shadow that has all open writes looked at whenever an entry was taken off, before anyone knows.
struct LookedAt {
    inner: Arc<dyn ShadowPort>,
    looker: KeyWrites,
}

#[async_trait]
impl ShadowPort for LookedAt {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let removes = !change.remove.is_empty();
        let answer = self.inner.update(thing, change).await;
        if removes {
            self.looker
                .reconcile_all(None, 9)
                .await
                .expect("the store answers");
        }
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

#[tokio::test(start_paused = true)]
async fn a_look_in_the_middle_of_a_withdrawal_does_not_bring_the_entry_back() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    let looker = KeyWrites::new(world.ports.clone(), Settings::default()).expect("valid settings");
    let shadow = Arc::new(LookedAt {
        inner: world.ports.shadow.clone(),
        looker,
    });
    let ports = Ports {
        shadow,
        ..world.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
    let withdrawn = writes.withdraw(lock_id(LOCK), id, &principal(), None).await;
    let state = world.state(id).await;
    assert_eq!(state == "WITHDRAWN", withdrawn.is_ok(), "{withdrawn:?}");
    world.check(&[]).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_is_cut_short_after_its_removal_is_made_good_soon() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    // It has been looked at, so that nobody would come by before it expires.
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    let ports = Ports {
        locks: Arc::new(NoEnd(world.ports.locks.clone())),
        ..world.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
    let withdrawn = writes.withdraw(lock_id(LOCK), id, &principal(), None).await;
    assert_eq!(withdrawn, Err(keywright_domain::WithdrawError::Undecided));
    assert!(world.shadow().expect("a shadow").entries.is_empty());
    world.clock.advance(Duration::from_secs(11));
    world.maintain().await;
    assert_eq!(world.shadow().expect("a shadow").entries, [id]);
    world.check_at_rest().await;
}

/// A store that takes no save which appends an event.
struct NoEnd(Arc<dyn LockRepo>);

#[async_trait]
impl LockRepo for NoEnd {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.0.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        if save.events.is_empty() {
            self.0.save(save).await
        } else {
            Err(RepoError::Unavailable("no space is left".into()))
        }
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(owner, lease).await
    }
}

/// Writes down the token of each request.
struct Named {
    inner: Arc<dyn ShadowPort>,
    tokens: std::sync::Mutex<Vec<String>>,
}

impl Named {
    fn note(&self, token: &ClientToken) {
        let mut tokens = self
            .tokens
            .lock()
            .expect("no test panics while it holds this");
        tokens.push(token.as_str().to_owned());
    }
}

#[async_trait]
impl ShadowPort for Named {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.note(&change.token);
        self.inner.update(thing, change).await
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.note(&token);
        self.inner.read(thing, token).await
    }
}

/// So that the late answer of an update cannot be taken for that of the fence, or of anything else.
#[tokio::test(start_paused = true)]
async fn no_two_requests_have_one_token() {
    use keywright_adapters::decorator::Fault;
    let mut world = World::new().await;
    let named = Arc::new(Named {
        inner: world.ports.shadow.clone(),
        tokens: std::sync::Mutex::default(),
    });
    world.ports.shadow = named.clone();
    world.restart();
    // Sent, sent again, fenced; then undecided, taken over by two others, and ended by the last one.
    world.trouble_at(
        [
            &[
                Fault::Pass,
                Fault::Withhold,
                Fault::Withhold,
                Fault::Withhold,
            ],
            &[],
        ],
        [&[], &[]],
    );
    let fenced = world.write("key", Some(2)).await;
    assert!(
        matches!(fenced, Err(WriteError::NotUpdated(_))),
        "{fenced:?}"
    );
    let down = [Fault::LoseRequest; 60];
    world.trouble_at([&down, &down], [&[], &[]]);
    let undecided = world.write("key", Some(3)).await;
    assert!(
        matches!(undecided, Err(WriteError::Undecided(_))),
        "{undecided:?}"
    );
    world.restart();
    world.recover().await;
    world.no_trouble();
    let withdrawn = world.write("key", Some(4)).await.expect("written").write;
    world.withdraw(withdrawn).await.expect("withdrawn");
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    let mut tokens = named
        .tokens
        .lock()
        .expect("no test panics while it holds this")
        .clone();
    let all = tokens.len();
    assert!(all > 15, "{tokens:?}");
    assert!(tokens.iter().all(|token| token.len() <= 64));
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), all);
}
