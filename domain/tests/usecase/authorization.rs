//! Use cases that act for a principal authorize it themselves, so that an embedding service cannot forget to.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{Identity, LockEvent, NewLock, Principal, RecordedEvent, *};
use keywright_domain::policy::{Rejection, WriteKey};
use keywright_domain::ports::LockHistory;
use keywright_domain::{KeyWrites, ReadError, RequestOptions, WithdrawError, WriteError};
use keywright_testkit::samples::{NOW, created, lock_id, owner, principal, slot};
use tokio::time::Instant;

use crate::harness::{Harness, LOCK, succeeded};

/// A lock that the stranger owns.
const STRANGERS_LOCK: u64 = 124;

fn user(name: &str) -> Principal {
    Principal::of(Identity::User(UserId::new(name).expect("a user id")))
}

fn strangers() -> [Principal; 3] {
    let organization = OrganizationId::new("another-organization").expect("an organization");
    [
        user("a-stranger"),
        Principal::of(Identity::Organization(organization.clone())),
        Principal::of_both(
            Identity::User(UserId::new("a-stranger").expect("a user id")),
            Identity::Organization(organization),
        ),
    ]
}

async fn with_strangers_lock(harness: &Harness) {
    let new = NewLock {
        owner: UserId::new("a-stranger").ok(),
        ..NewLock::default()
    };
    let created = RecordedEvent {
        event: LockEvent::LockCreated(Box::new(new)),
        ..created(lock_id(STRANGERS_LOCK))
    };
    let imported = harness.store.import(vec![created]).await;
    imported.expect("the lock is imported");
}

/// Each event names the request that led to it: that of its write, or the one that superseded or withdrew the write.
#[tokio::test(start_paused = true)]
async fn events_name_the_request_that_led_to_them() {
    let harness = Harness::new().await;
    let caller = principal();
    let (first, second, third) = ("first.request", "second-request", "withdrawal");
    let options = |id| {
        let id = RequestId::new(id).expect("a request id");
        RequestOptions::default().with_request_id(id)
    };
    let write = async |key, id| {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot(key, Some(2)),
        };
        let writing = harness.writes.write_key(&command, &caller, options(id));
        writing.await.expect("written")
    };
    write("old", first).await;
    let receipt = write("new", second).await;
    let event = receipt.event.expect("an event");
    let withdrawing =
        harness
            .writes
            .withdraw(lock_id(LOCK), receipt.write, &caller, options(third));
    withdrawing.await.expect("withdrawn");
    let stream = harness.stream().await;
    assert!(
        stream.contains(&event),
        "the receipt has the event as it is stored"
    );
    let causes = stream.iter().map(|event| {
        let cause = event.cause.as_ref().map(|cause| {
            assert_eq!(cause.requested_by, principal().to_string());
            cause.request.as_ref().expect("a request id").as_str()
        });
        (event.event.name(), cause)
    });
    assert_eq!(
        causes.collect::<Vec<_>>(),
        [
            ("LockCreated", None),
            ("KeyWriteRequested", Some(first)),
            ("KeyWriteSuperseded", Some(second)),
            ("KeyWriteRequested", Some(second)),
            ("KeyWriteWithdrawn", Some(third)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rejects_every_use_case_of_a_stranger() {
    let harness = Harness::new().await;
    with_strangers_lock(&harness).await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let before = (
        harness.stored(id).await,
        harness.stream().await,
        harness.shadow(),
    );
    let (lock, writes) = (lock_id(LOCK), &harness.writes);
    let far = Tick(Duration::from_secs(3600));
    for stranger in strangers() {
        let command = WriteKey {
            lock,
            slot: slot("key", Some(3)),
        };
        let written = writes
            .write_key(&command, &stranger, RequestOptions::default())
            .await;
        assert_eq!(written, Err(WriteError::Rejected(Rejection::Forbidden)));
        let forbidden = ReadError::Rejected(Rejection::Forbidden);
        let withdrawn = writes
            .withdraw(lock, id, &stranger, RequestOptions::default())
            .await;
        assert_eq!(
            withdrawn,
            Err(WithdrawError::Rejected(Rejection::Forbidden))
        );
        let read = writes.read_lock(lock, &stranger).await;
        assert_eq!(read, Err(forbidden.clone()));
        let read = writes.read_write(lock, id, &stranger).await;
        assert_eq!(read, Err(forbidden.clone()));
        let first = |_: &_| LockVersion(1);
        let read = writes.read_events(lock, &stranger, first, 10).await;
        assert_eq!(read.map(drop), Err(forbidden.clone()));
        let start = Instant::now();
        let waited = writes
            .wait_for_write(lock, id, &stranger, far, pending)
            .await;
        assert_eq!(waited, Err(forbidden));
        assert_eq!(
            start.elapsed(),
            Duration::ZERO,
            "the rejection is immediate"
        );
    }
    let after = (
        harness.stored(id).await,
        harness.stream().await,
        harness.shadow(),
    );
    assert_eq!(before, after, "nothing changed");
}

/// A service with access rules of its own lets in two callers that own nothing here. They share no idempotency record, and each
/// write names its caller.
#[tokio::test(start_paused = true)]
async fn access_rules_of_the_service_replace_those_of_owners() {
    let harness = Harness::new().await;
    let staff = ["alice@example.com", "bob@example.com"];
    let is_staff = move |principal: &Principal, _: &Lock| {
        let is_named = |identity: &Identity| match identity {
            Identity::Subject(subject) => staff.contains(&subject.as_str()),
            _ => false,
        };
        principal.identities().any(is_named)
    };
    let settings = *harness.writes.settings();
    let writes = KeyWrites::with_access(harness.ports.clone(), settings, Arc::new(is_staff));
    let writes = writes.expect("the settings are valid");
    let subject = |name| Principal::of(Identity::Subject(SubjectId::new(name).expect("an id")));
    let write = async |caller: &Principal, index| {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot("key", Some(index)),
        };
        let key = IdempotencyKey::new("the same key").ok();
        let options = RequestOptions::default().with_idempotency_key(key);
        writes.write_key(&command, caller, options).await
    };
    let [alice, bob] = staff.map(subject);
    let first = write(&alice, 2).await.expect("written");
    let second = write(&bob, 3).await.expect("written");
    assert_ne!(first.write, second.write);
    assert_eq!(write(&alice, 2).await, Ok(first.clone()), "alice's answer");
    for (receipt, caller) in [
        (first, "subject:alice@example.com"),
        (second, "subject:bob@example.com"),
    ] {
        let stored = harness.stored(receipt.write).await;
        let requested_by = stored.map(|write| write.cause.requested_by);
        assert_eq!(requested_by.as_deref(), Some(caller));
    }
    for stranger in [subject("eve@example.com"), principal()] {
        let refused = write(&stranger, 4).await;
        assert_eq!(refused, Err(WriteError::Rejected(Rejection::Forbidden)));
        let read = writes.read_lock(lock_id(LOCK), &stranger).await;
        assert_eq!(read, Err(ReadError::Rejected(Rejection::Forbidden)));
    }
}

#[tokio::test(start_paused = true)]
async fn does_not_find_a_write_through_another_lock() {
    let harness = Harness::new().await;
    with_strangers_lock(&harness).await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let (stranger, own) = (user("a-stranger"), lock_id(STRANGERS_LOCK));
    let far = Tick(Duration::from_secs(3600));
    let withdrawn = harness
        .writes
        .withdraw(own, id, &stranger, RequestOptions::default())
        .await;
    assert_eq!(withdrawn, Err(WithdrawError::NotFound));
    let read = harness.writes.read_write(own, id, &stranger).await;
    assert_eq!(read, Err(ReadError::WriteNotFound));
    let waited = harness
        .writes
        .wait_for_write(own, id, &stranger, far, pending)
        .await;
    assert_eq!(waited, Err(ReadError::WriteNotFound));
    let unknown = harness
        .writes
        .withdraw(lock_id(404), id, &stranger, RequestOptions::default())
        .await;
    let not_found = WithdrawError::Rejected(Rejection::LockNotFound);
    assert_eq!(unknown, Err(not_found));
    assert_eq!(harness.state(id).await, "SENT");
}

#[tokio::test(start_paused = true)]
async fn waits_until_the_end_of_the_write_or_the_deadline() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let lock = lock_id(LOCK);
    let wait = |span| {
        let until = harness.ports.timer.tick().after(span);
        let writes = harness.writes.clone();
        async move {
            let caller = principal();
            writes
                .wait_for_write(lock, id, &caller, until, pending)
                .await
        }
    };
    let open = wait(Duration::from_secs(3)).await.expect("the write");
    assert_eq!(open.state.name(), "SENT");

    let start = Instant::now();
    let waiting = tokio::spawn(wait(Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = harness.report(id, succeeded()).await;
    harness.settle(&report).await;
    let ended = waiting.await.expect("no panic").expect("the write");
    assert_eq!(ended.state.name(), "SUCCEEDED");
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_principal_that_loses_its_access_stops_waiting() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let (lock, writes, caller) = (lock_id(LOCK), harness.writes.clone(), principal());
    let far = Tick(Duration::from_secs(3600));
    let waiting =
        tokio::spawn(async move { writes.wait_for_write(lock, id, &caller, far, pending).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = harness.lock().await;
    let event = |version: u64, event| RecordedEvent {
        lock,
        uuid: snapshot.lock.uuid.clone(),
        version: LockVersion(version),
        time: NOW,
        write: None,
        cause: None,
        event,
    };
    let next = snapshot.lock.version.0 + 1;
    let user = UserId::new("the-next-owner").expect("a user id");
    let sold = event(next, LockEvent::OwnerSet { user });
    let keys = snapshot
        .lock
        .keys
        .iter()
        .filter(|k| k.held.user == Some(owner()));
    let removed = keys.zip(next + 1..).map(|(key, version)| {
        let slot = slot(key.held.key.as_str(), None);
        event(version, LockEvent::KeyRemoved(slot))
    });
    let events = std::iter::once(sold).chain(removed).collect();
    harness.store.import(events).await.expect("imported");
    let waited = waiting.await.expect("no panic");
    assert_eq!(waited, Err(ReadError::Rejected(Rejection::Forbidden)));
}
