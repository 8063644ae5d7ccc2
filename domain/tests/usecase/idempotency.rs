//! Repeated requests with an `Idempotency-Key` (I7).

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::{CredentialName, IdempotencyKey, Identity, Principal, Proof};
use keywright_domain::policy::{Rejection, WriteKey};
use keywright_domain::{RequestOptions, WriteError, WriteReceipt, invariants};
use keywright_testkit::samples::{lock_id, principal, slot};

use crate::harness::{Faults, Harness, LOCK, succeeded};

fn with_key(idempotency_key: &str) -> RequestOptions {
    let key = IdempotencyKey::new(idempotency_key).expect("an Idempotency-Key");
    RequestOptions::default().with_idempotency_key(key)
}

async fn write_as(
    harness: &Harness,
    principal: &Principal,
    idempotency_key: &str,
    key: &str,
    index: u64,
) -> Result<WriteReceipt, WriteError> {
    let command = WriteKey {
        lock: lock_id(LOCK),
        slot: slot(key, Some(index)),
    };
    harness
        .writes
        .write_key(&command, principal, with_key(idempotency_key))
        .await
}

async fn write(
    harness: &Harness,
    idempotency_key: &str,
    key: &str,
    index: u64,
) -> Result<WriteReceipt, WriteError> {
    write_as(harness, &principal(), idempotency_key, key, index).await
}

#[tokio::test(start_paused = true)]
async fn repeats_a_200_whatever_the_state_of_the_write_is() {
    let harness = Harness::new().await;
    let first = write(&harness, "request-1", "key", 2)
        .await
        .expect("written");
    assert!(first.event.is_some());
    assert_eq!(
        write(&harness, "request-1", "key", 2).await,
        Ok(first.clone())
    );
    let report = harness.report(first.write, succeeded()).await;
    harness.settle(&report).await;
    let names = harness.event_names().await;
    assert_eq!(
        write(&harness, "request-1", "key", 2).await,
        Ok(first.clone())
    );
    assert_eq!(harness.event_names().await, names, "nothing is new");
    let other = write(&harness, "request-2", "key", 2)
        .await
        .expect("written");
    assert_ne!(other.write, first.write, "another key is another request");
}

#[tokio::test(start_paused = true)]
async fn repeats_an_answer_without_an_event() {
    let harness = Harness::new().await;
    let open = harness.write("key", Some(2)).await.expect("written");
    let first = write(&harness, "request-1", "key", 2)
        .await
        .expect("open already");
    assert_eq!((first.write, first.event.as_ref()), (open.write, None));
    let report = harness.report(open.write, succeeded()).await;
    harness.settle(&report).await;
    // Without an idempotency key, this would be a new write.
    assert_eq!(write(&harness, "request-1", "key", 2).await, Ok(first));
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_valid_for_one_principal_and_one_command() {
    let harness = Harness::new().await;
    let first = write(&harness, "request-1", "key", 2)
        .await
        .expect("written");
    assert_eq!(
        write(&harness, "request-1", "key", 3).await,
        Err(WriteError::OtherCommand)
    );
    assert_eq!(
        write(&harness, "request-1", "other", 2).await,
        Err(WriteError::OtherCommand)
    );
    let every_organization = Principal::of(Identity::EveryOrganization);
    let theirs = write_as(&harness, &every_organization, "request-1", "other", 3).await;
    assert_ne!(theirs.expect("written").write, first.write);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_valid_for_all_credentials_of_one_identity() {
    let harness = Harness::new().await;
    let by_key = |shown: &str| {
        Principal::of(Proof {
            identity: Identity::EveryOrganization,
            credential: Some(CredentialName::ApiKey(shown.into())),
        })
    };
    let (old, new) = (by_key("kwk_aaaa…1111"), by_key("kwk_bbbb…2222"));
    let first = write_as(&harness, &old, "request-1", "key", 2).await;
    let first = first.expect("written");
    let write = harness.stored(first.write).await;
    assert_eq!(
        write.expect("a write").cause.requested_by,
        "org:*,key:kwk_aaaa…1111"
    );
    assert_eq!(
        write_as(&harness, &new, "request-1", "key", 2).await,
        Ok(first)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_changed_nothing_runs_again() {
    let harness = Harness::new().await;
    // The first update creates the shadow.
    harness.inject(Faults {
        update: &[Fault::Pass, Fault::Refuse],
        ..Faults::default()
    });
    let refused = write(&harness, "request-1", "key", 2).await;
    assert!(
        matches!(refused, Err(WriteError::NotUpdated(_))),
        "{refused:?}"
    );
    let second = write(&harness, "request-1", "other", 3)
        .await
        .expect("written");
    assert_eq!(write(&harness, "request-1", "other", 3).await, Ok(second));
}

#[tokio::test(start_paused = true)]
async fn answers_conflict_while_running_and_repeats_504_while_undecided() {
    let mut harness = Harness::new().await;
    harness.write("first", Some(0)).await.expect("written");
    // The update is applied, its answer is lost, and all later requests to the shadow are lost.
    let lost = vec![Fault::LoseRequest; 64];
    harness.inject(Faults {
        update: &[Fault::DropAnswer],
        read: &lost,
        ..Faults::default()
    });
    let (writes, idempotency_key) = (harness.writes.clone(), "request-1");
    let running = tokio::spawn(async move {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot("key", Some(2)),
        };
        writes
            .write_key(&command, &principal(), with_key(idempotency_key))
            .await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        write(&harness, idempotency_key, "key", 2).await,
        Err(WriteError::StillRunning)
    );
    let answer = running.await.expect("no panic");
    let Err(WriteError::Undecided(id)) = answer else {
        panic!("{answer:?}")
    };
    // The wall clock of the harness does not move by itself.
    harness
        .clock
        .advance(harness.writes.settings().request_timeout);
    assert_eq!(
        write(&harness, idempotency_key, "key", 2).await,
        Err(WriteError::Undecided(id))
    );
    harness.end_faults();
    harness.restart();
    harness.recover().await;
    let written = write(&harness, idempotency_key, "key", 2)
        .await
        .expect("the shadow has the write");
    assert_eq!(written.write, id);
    assert_eq!(
        invariants::i1_answered(&written, &harness.stream().await),
        Ok(())
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_with_one_key_are_one_write() {
    for index in 0..8 {
        let harness = Harness::new().await;
        let (one, two) = tokio::join!(
            write(&harness, "request-1", "key", index),
            write(&harness, "request-1", "key", index)
        );
        let answers = [one, two];
        let receipts: Vec<&WriteReceipt> = answers.iter().flatten().collect();
        assert!(!receipts.is_empty(), "{answers:?}");
        for answer in &answers {
            match answer {
                Ok(written) => assert_eq!(written, receipts[0]),
                Err(WriteError::StillRunning) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            harness.event_names().await,
            ["LockCreated", "KeyWriteRequested"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_an_answer_while_the_lock_has_too_many_open_writes() {
    let harness = Harness::new().await;
    let first = write(&harness, "request-1", "key", 90)
        .await
        .expect("written");
    let report = harness.report(first.write, succeeded()).await;
    harness.settle(&report).await;
    for index in 0..16 {
        harness
            .write("another", Some(index))
            .await
            .expect("written");
    }
    let full = Err(WriteError::Rejected(Rejection::TooManyOpenWrites));
    assert_eq!(write(&harness, "request-2", "key", 90).await, full);
    assert_eq!(write(&harness, "request-1", "key", 90).await, Ok(first));
    assert_eq!(
        write(&harness, "request-1", "key", 91).await,
        Err(WriteError::OtherCommand)
    );
}

#[tokio::test(start_paused = true)]
async fn a_purged_idempotency_key_can_be_used_again() {
    let harness = Harness::new().await;
    let first = write(&harness, "request-1", "key", 2)
        .await
        .expect("written");
    let report = harness.report(first.write, succeeded()).await;
    harness.settle(&report).await;
    harness
        .clock
        .advance(harness.writes.settings().limits.idempotency_retention);
    assert_eq!(
        harness.writes.purge(100).await,
        Ok(1),
        "one record is purged"
    );
    let second = write(&harness, "request-1", "key", 2)
        .await
        .expect("written");
    assert_ne!(second.write, first.write);
}
