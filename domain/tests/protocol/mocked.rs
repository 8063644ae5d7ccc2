//! Where one error must be injected, or a call must not happen.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::ports::*;
use keywright_domain::principal::{Identity, Principal};
use keywright_domain::rules::{Rejection, WriteKey};
use keywright_domain::values::*;
use keywright_domain::{KeyWrites, Ports, Settings, WriteError};
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
        let answer = writes.write_key(&command, &principal).await;
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
        .write_key(&command("key", Some(2)), &principal())
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
        .write_key(&command("key", Some(2)), &principal())
        .await;
    assert!(
        matches!(answer, Err(WriteError::Undecided(_))),
        "{answer:?}"
    );
    assert_eq!(start.elapsed().as_secs(), 10);
}
