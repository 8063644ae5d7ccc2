//! Tests with ports of their own: calls that must not happen, and interleavings of two use cases.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{Identity, LockSnapshot, Principal, WorkerId, Write, *};
use keywright_domain::policy::{Rejection, WriteKey};
use keywright_domain::ports::*;
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings, WriteError};
use keywright_testkit::samples::{lock_id, principal, slot};
use mockall::mock;

use crate::harness::{Faults, Harness, LOCK, reconcile_all};

mock! {
    Shadow {}

    #[async_trait]
    impl ShadowPort for Shadow {
        async fn update(&self, thing: &ThingName, change: ShadowChange) -> Result<ShadowVersion, ShadowError>;
        async fn read(&self, thing: &ThingName, token: ClientToken) -> Result<Option<ShadowSnapshot>, ShadowError>;
    }
}

fn with_shadow(harness: &Harness, shadow: MockShadow) -> KeyWrites {
    let ports = Ports {
        shadow: Arc::new(shadow),
        ..harness.ports.clone()
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
    let harness = Harness::new().await;
    let mut shadow = MockShadow::new();
    shadow.expect_update().never();
    shadow.expect_read().never();
    let writes = with_shadow(&harness, shadow);
    let stranger = Principal::of(Identity::User(
        UserId::new("a-stranger").expect("a user id"),
    ));
    let before = harness.lock().await;
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
    assert_eq!(harness.lock().await, before);
}

#[tokio::test(start_paused = true)]
async fn an_already_open_write_never_calls_the_shadow() {
    let harness = Harness::new().await;
    harness.write("key", Some(2)).await.expect("written");
    let mut shadow = MockShadow::new();
    shadow.expect_update().never();
    shadow.expect_read().never();
    let answer = with_shadow(&harness, shadow)
        .write_key(
            &command("key", Some(2)),
            &principal(),
            RequestOptions::default(),
        )
        .await;
    assert_eq!(answer.expect("nothing new").event, None);
}

#[tokio::test(start_paused = true)]
async fn unknown_outcomes_end_in_undecided_at_the_deadline() {
    let harness = Harness::new().await;
    harness.write("first", Some(0)).await.expect("written");
    let writes = with_shadow(&harness, {
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

/// A store whose loads yield to other tasks first, so that two use cases interleave.
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

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(worker, lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_copies_of_a_late_report_are_recorded_once() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    harness.withdraw(written.write).await.expect("withdrawn");
    let report = harness
        .report(written.write, crate::harness::succeeded())
        .await;
    let locks = Arc::new(Interleaved(harness.ports.locks.clone()));
    let ports = Ports {
        locks,
        ..harness.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("the defaults are valid");
    let (one, two) = tokio::join!(writes.settle(&report), writes.settle(&report));
    assert!(one.is_ok() && two.is_ok());
    let confirmed = harness
        .event_names()
        .await
        .iter()
        .filter(|n| **n == "KeyWriteConfirmed")
        .count();
    assert_eq!(confirmed, 1);
    harness.check(&[]).await;
}

/// A shadow that runs a reconciliation after each removal of an entry, before it answers the removal.
struct ReconcilingShadow {
    inner: Arc<dyn ShadowPort>,
    reconciler: KeyWrites,
}

#[async_trait]
impl ShadowPort for ReconcilingShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let removes = !change.remove.is_empty();
        let answer = self.inner.update(thing, change).await;
        if removes {
            let reconciled = reconcile_all(&self.reconciler).await;
            reconciled.expect("the store answers");
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
async fn a_reconciliation_during_a_withdrawal_does_not_restore_the_entry() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let reconciler =
        KeyWrites::new(harness.ports.clone(), Settings::default()).expect("valid settings");
    let shadow = Arc::new(ReconcilingShadow {
        inner: harness.ports.shadow.clone(),
        reconciler,
    });
    let ports = Ports {
        shadow,
        ..harness.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
    let withdrawn = writes
        .withdraw(lock_id(LOCK), id, &principal(), RequestOptions::default())
        .await;
    let state = harness.state(id).await;
    assert_eq!(state == "WITHDRAWN", withdrawn.is_ok(), "{withdrawn:?}");
    harness.check(&[]).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_cut_short_after_its_removal_is_repaired_soon() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    // After this check the next one is far away.
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    let ports = Ports {
        locks: Arc::new(NoEvents(harness.ports.locks.clone())),
        ..harness.ports.clone()
    };
    let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
    let withdrawn = writes
        .withdraw(lock_id(LOCK), id, &principal(), RequestOptions::default())
        .await;
    assert_eq!(withdrawn, Err(keywright_domain::WithdrawError::Undecided));
    assert!(harness.shadow().expect("a shadow").entries.is_empty());
    harness.clock.advance(Duration::from_secs(11));
    harness.maintain().await;
    assert_eq!(harness.shadow().expect("a shadow").entries, [id]);
    harness.check_at_rest().await;
}

/// A store that makes no save with events.
struct NoEvents(Arc<dyn LockRepo>);

#[async_trait]
impl LockRepo for NoEvents {
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

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(worker, lease).await
    }
}

/// Records the client token of each request.
struct TokenRecorder {
    inner: Arc<dyn ShadowPort>,
    tokens: std::sync::Mutex<Vec<String>>,
}

impl TokenRecorder {
    fn note(&self, token: &ClientToken) {
        let mut tokens = self.tokens.lock().expect("no panic");
        tokens.push(token.as_str().to_owned());
    }
}

#[async_trait]
impl ShadowPort for TokenRecorder {
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

/// The late answer to an update cannot be taken as the answer to the fence or to another request.
#[tokio::test(start_paused = true)]
async fn client_tokens_are_unique() {
    use keywright_adapters::decorator::Fault;
    let mut harness = Harness::new().await;
    let recorder = Arc::new(TokenRecorder {
        inner: harness.ports.shadow.clone(),
        tokens: std::sync::Mutex::default(),
    });
    harness.ports.shadow = recorder.clone();
    harness.restart();
    // The first write is sent, sent again and fenced. The second is undecided and taken over.
    harness.inject(Faults {
        update: &[
            Fault::Pass,
            Fault::Withhold,
            Fault::Withhold,
            Fault::Withhold,
        ],
        ..Faults::default()
    });
    let fenced = harness.write("key", Some(2)).await;
    assert!(
        matches!(fenced, Err(WriteError::NotUpdated(_))),
        "{fenced:?}"
    );
    let down = [Fault::LoseRequest; 60];
    harness.inject(Faults {
        update: &down,
        read: &down,
        ..Faults::default()
    });
    let undecided = harness.write("key", Some(3)).await;
    assert!(
        matches!(undecided, Err(WriteError::Undecided(_))),
        "{undecided:?}"
    );
    harness.restart();
    harness.recover().await;
    harness.end_faults();
    let withdrawn = harness.write("key", Some(4)).await.expect("written").write;
    harness.withdraw(withdrawn).await.expect("withdrawn");
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    let mut tokens = recorder.tokens.lock().expect("no panic").clone();
    let all = tokens.len();
    assert!(all > 15, "{tokens:?}");
    assert!(tokens.iter().all(|token| token.len() <= 64));
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), all);
}
