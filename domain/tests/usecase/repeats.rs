//! The same request sent again under its `Idempotency-Key` (I7).

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::{CredentialName, IdempotencyKey, Identity, Principal, Proof};
use keywright_domain::policy::{Rejection, WriteKey};
use keywright_domain::{RequestOptions, WriteError, WriteReceipt, invariants as holds};
use keywright_testkit::samples::{lock_id, principal, slot};

use crate::world::{LOCK, World, succeeded};

fn named(name: &str) -> RequestOptions {
    RequestOptions {
        idempotency_key: Some(IdempotencyKey::new(name).expect("an Idempotency-Key")),
        deadline: None,
    }
}

async fn ask_as(
    world: &World,
    who: &Principal,
    name: &str,
    key: &str,
    index: u64,
) -> Result<WriteReceipt, WriteError> {
    let command = WriteKey {
        lock: lock_id(LOCK),
        slot: slot(key, Some(index)),
    };
    world.writes.write_key(&command, who, named(name)).await
}

async fn ask(world: &World, name: &str, key: &str, index: u64) -> Result<WriteReceipt, WriteError> {
    ask_as(world, &principal(), name, key, index).await
}

#[tokio::test(start_paused = true)]
async fn a_200_is_answered_again_whatever_became_of_the_write() {
    let world = World::new().await;
    let first = ask(&world, "name", "key", 2).await.expect("written");
    assert!(first.event.is_some());
    assert_eq!(ask(&world, "name", "key", 2).await, Ok(first.clone()));
    let report = world.report(first.write, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    let names = world.names().await;
    assert_eq!(ask(&world, "name", "key", 2).await, Ok(first.clone()));
    assert_eq!(world.names().await, names, "nothing is new");
    let other = ask(&world, "another", "key", 2).await.expect("written");
    assert_ne!(other.write, first.write, "under another name it is another");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_event_is_kept_too() {
    let world = World::new().await;
    let open = world.write("key", Some(2)).await.expect("written");
    let first = ask(&world, "name", "key", 2).await.expect("open already");
    assert_eq!((first.write, first.event.as_ref()), (open.write, None));
    let report = world.report(open.write, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    // Without a name, this would be a new write.
    assert_eq!(ask(&world, "name", "key", 2).await, Ok(first));
}

#[tokio::test(start_paused = true)]
async fn a_name_counts_for_one_principal_and_one_command() {
    let world = World::new().await;
    let first = ask(&world, "name", "key", 2).await.expect("written");
    assert_eq!(
        ask(&world, "name", "key", 3).await,
        Err(WriteError::OtherCommand)
    );
    assert_eq!(
        ask(&world, "name", "other", 2).await,
        Err(WriteError::OtherCommand)
    );
    let super_key = Principal::of(keywright_domain::model::Identity::EveryOrganization);
    let theirs = ask_as(&world, &super_key, "name", "other", 3).await;
    assert_ne!(theirs.expect("written").write, first.write);
}

#[tokio::test(start_paused = true)]
async fn a_name_counts_for_all_credentials_of_one_identity() {
    let world = World::new().await;
    let by_key = |shown: &str| {
        Principal::of(Proof {
            identity: Identity::EveryOrganization,
            credential: Some(CredentialName::ApiKey(shown.into())),
        })
    };
    let (old, new) = (by_key("kwk_aaaa…1111"), by_key("kwk_bbbb…2222"));
    let first = ask_as(&world, &old, "name", "key", 2).await;
    let first = first.expect("written");
    let write = world.stored(first.write).await;
    assert_eq!(
        write.expect("a write").requested_by,
        "org:*,key:kwk_aaaa…1111"
    );
    assert_eq!(ask_as(&world, &new, "name", "key", 2).await, Ok(first));
}

#[tokio::test(start_paused = true)]
async fn what_changed_nothing_runs_again_under_its_name() {
    let world = World::new().await;
    // The first update makes the shadow.
    world.trouble_at([&[Fault::Pass, Fault::Refuse], &[]], [&[], &[]]);
    let refused = ask(&world, "name", "key", 2).await;
    assert!(
        matches!(refused, Err(WriteError::NotUpdated(_))),
        "{refused:?}"
    );
    let second = ask(&world, "name", "other", 3).await.expect("written");
    assert_eq!(ask(&world, "name", "other", 3).await, Ok(second));
}

#[tokio::test(start_paused = true)]
async fn while_the_outcome_is_not_known_it_is_a_conflict_and_then_the_same_504() {
    let mut world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    // The update is done, its answer is lost, and so are those of all that is asked after it.
    let lost = vec![Fault::LoseRequest; 64];
    world.trouble_at([&[Fault::DropAnswer], &lost], [&[], &[]]);
    let (writes, name) = (world.writes.clone(), "name");
    let running = tokio::spawn(async move {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot("key", Some(2)),
        };
        writes.write_key(&command, &principal(), named(name)).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        ask(&world, name, "key", 2).await,
        Err(WriteError::StillRunning)
    );
    let answer = running.await.expect("no panic");
    let Err(WriteError::Undecided(id)) = answer else {
        panic!("{answer:?}")
    };
    // The wall clock of this world stands until it is moved.
    world.clock.advance(world.writes.settings().request_timeout);
    assert_eq!(
        ask(&world, name, "key", 2).await,
        Err(WriteError::Undecided(id))
    );
    world.no_trouble();
    world.restart();
    world.recover().await;
    let written = ask(&world, name, "key", 2).await.expect("it was done");
    assert_eq!(written.write, id);
    assert_eq!(holds::i1_answered(&written, &world.stream().await), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn two_at_once_under_one_name_are_one_write() {
    for index in 0..8 {
        let world = World::new().await;
        let (one, two) = tokio::join!(
            ask(&world, "name", "key", index),
            ask(&world, "name", "key", index)
        );
        let answers = [one, two];
        let events: Vec<&WriteReceipt> = answers.iter().flatten().collect();
        assert!(!events.is_empty(), "{answers:?}");
        for answer in &answers {
            match answer {
                Ok(written) => assert_eq!(written, events[0]),
                Err(WriteError::StillRunning) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.names().await, ["LockCreated", "KeyWriteRequested"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_answered_again_also_when_the_lock_is_full() {
    let world = World::new().await;
    let first = ask(&world, "name", "key", 90).await.expect("written");
    let report = world.report(first.write, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    for index in 0..16 {
        world.write("another", Some(index)).await.expect("written");
    }
    let full = Err(WriteError::Rejected(Rejection::TooManyOpenWrites));
    assert_eq!(ask(&world, "another name", "key", 90).await, full);
    assert_eq!(ask(&world, "name", "key", 90).await, Ok(first));
    assert_eq!(
        ask(&world, "name", "key", 91).await,
        Err(WriteError::OtherCommand)
    );
}

#[tokio::test(start_paused = true)]
async fn after_its_time_a_name_is_new() {
    let world = World::new().await;
    let first = ask(&world, "name", "key", 2).await.expect("written");
    let report = world.report(first.write, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    world
        .clock
        .advance(world.writes.settings().limits.idempotency_retention);
    assert_eq!(world.writes.purge(100).await, Ok(1), "the answer");
    let second = ask(&world, "name", "key", 2).await.expect("written");
    assert_ne!(second.write, first.write);
}
