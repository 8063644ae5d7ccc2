//! Decorators: what they return for slow and faulty calls, and what observers are notified of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_adapters::decorator::*;
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_testkit::samples::{created, lock_id, prepared, slot, thing};
use tokio::sync::broadcast;

const LIMIT: Duration = Duration::from_secs(1);

fn faults(plan: &str) -> FaultInjector {
    FaultInjector::new(plan.parse().expect("a plan"))
}

fn token(n: u32) -> ClientToken {
    ClientToken::new(WriteId::from_u128(1), Epoch(1), n)
}

fn door() -> ThingName {
    thing(lock_id(1))
}

/// A store with one lock.
async fn store() -> Arc<InMemoryLockRepo> {
    let store = InMemoryLockRepo::new(Arc::new(TokioTimer::default()));
    let imported = store.import(vec![created(lock_id(1))]).await;
    imported.expect("imported");
    Arc::new(store)
}

async fn load(store: &dyn LockRepo) -> LockSnapshot {
    let loaded = store.load(lock_id(1)).await.expect("loaded");
    loaded.expect("the lock")
}

#[tokio::test(start_paused = true)]
async fn a_late_update_is_unknown_and_applied_later() {
    let real: Arc<dyn ShadowPort> = Arc::new(InMemoryShadow::of_this_process());
    let slow = FaultyShadow::with(real.clone(), faults("update@1=late:5s,read@1=delay:6s"));
    let answer = slow.update(&door(), ShadowChange::create(token(0))).await;
    assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    assert_eq!(real.read(&door(), token(1)).await, Ok(None));
    slow.read(&door(), token(2)).await.expect("read");
    let found = real.read(&door(), token(3)).await.expect("read");
    assert_eq!(found.map(|f| f.version), Some(ShadowVersion(1)));
}

#[tokio::test(start_paused = true)]
async fn a_save_that_times_out_is_unknown_and_a_load_is_unavailable() {
    let real = store().await;
    let (_, save) = prepared(&load(&*real).await, 10, slot("k", None));
    let slow = FaultyLockRepo::new(real, faults("save@1=delay:5s,load@1=delay:5s"));
    let repo: Timeout<dyn LockRepo> = Timeout::new(Arc::new(slow), LIMIT);
    assert!(matches!(repo.save(save).await, Err(RepoError::Unknown(_))));
    assert!(matches!(
        repo.load(lock_id(1)).await,
        Err(RepoError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_faulty_store_tells_refused_saves_from_lost_ones() {
    let real = store().await;
    let plan = faults("save@1=refuse,save@2=lose,save@3=drop-answer,load@1=refuse");
    let repo = FaultyLockRepo::new(real.clone(), plan);
    let before = load(&*real).await;
    let (_, save) = prepared(&before, 10, slot("k", None));
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unavailable(_))
    ));
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unknown(_))
    ));
    assert_eq!(load(&*real).await, before);
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unknown(_))
    ));
    let saved = load(&*real).await.unfinished.len();
    assert_eq!(saved, 1, "only the answer was lost");
    assert!(repo.load(lock_id(1)).await.is_err());
    assert!(repo.load(lock_id(1)).await.is_ok());
}

#[tokio::test]
async fn a_broadcast_has_the_applied_saves_only() {
    let real = store().await;
    let (tx, mut saved) = broadcast::channel(8);
    let observers: Observers = Arc::new([Arc::new(WriteBroadcast::new(tx))]);
    let observed = Observed::<dyn LockRepo>::new(real, observers);
    let (write, save) = prepared(&load(&observed).await, 10, slot("k", None));
    observed.save(save.clone()).await.expect("saved");
    assert_eq!(observed.save(save).await, Err(RepoError::Stale));
    assert_eq!(saved.try_recv().ok().as_deref(), Some(&write));
    assert!(saved.try_recv().is_err(), "a stale save is not sent");
}

/// Records calls as `port call outcome`, and saves as the number of their writes.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<String>>,
    saves: Mutex<Vec<usize>>,
}

impl Recorder {
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("no panic"))
    }
}

impl Observer for Recorder {
    fn call_ended(&self, call: &PortCall<'_>, outcome: &CallOutcome<'_>, _: Duration) {
        let (port, name, outcome) = (call.port(), call.name(), outcome.name());
        let known = PortCall::KNOWN.iter().any(|known| {
            let is_known = known.calls.contains(&name) && known.outcomes.contains(&outcome);
            known.port == port && is_known
        });
        assert!(known || name == "import", "{port} {name} {outcome}");
        let mut calls = self.calls.lock().expect("no panic");
        calls.push(format!("{port} {name} {outcome}"));
    }

    fn saved(&self, save: &Save) {
        let mut saves = self.saves.lock().expect("no panic");
        saves.push(save.writes.len());
    }
}

#[tokio::test(start_paused = true)]
async fn observers_are_notified_of_each_call_of_each_port() {
    let recorder = Arc::new(Recorder::default());
    let observers: Observers = Arc::new([recorder.clone()]);

    let real = Arc::new(InMemoryShadow::of_this_process());
    let faulty = FaultyShadow::with(real, faults("read@1=delay:5s,update@4=refuse"));
    let shadow = Observed::<dyn ShadowPort>::new(Arc::new(faulty), observers.clone());
    let thing = door();
    for change in [
        ShadowChange::create(token(1)),
        ShadowChange::fence(ShadowVersion(1), token(2)),
        ShadowChange::fence(ShadowVersion(1), token(3)),
        ShadowChange::create(token(4)),
    ] {
        let _ = shadow.update(&thing, change).await;
    }
    let reading = tokio::time::timeout(LIMIT, shadow.read(&thing, token(5)));
    assert!(reading.await.is_err(), "it is delayed");
    let _ = shadow.read(&thing, token(6)).await;
    assert_eq!(
        recorder.calls(),
        [
            "shadow update ok",
            "shadow fence ok",
            "shadow fence conflict",
            "shadow update refused",
            "shadow read given_up",
            "shadow read ok",
        ]
    );

    let real = store().await;
    let history = Observed::<dyn LockHistory>::new(real, observers);
    let now = Timestamp::from_millis(0);
    let _ = history.write(WriteId::from_u128(1)).await;
    let _ = history.events(lock_id(1), LockVersion(1), 1).await;
    let _ = history.due(now, None, 1).await;
    let _ = history.backlog(now..=now).await;
    let _ = history.purge(now, now, 1).await;
    let _ = history.locks(None, 1).await;
    let _ = history.import(vec![created(lock_id(1))]).await;
    assert_eq!(
        recorder.calls(),
        [
            "store find_write ok",
            "store events ok",
            "store due ok",
            "store backlog ok",
            "store purge ok",
            "store locks ok",
            "store import refused",
        ]
    );
}

#[tokio::test]
async fn observers_are_notified_of_an_applied_save() {
    let recorder = Arc::new(Recorder::default());
    let observers: Observers = Arc::new([recorder.clone()]);
    let observed = Observed::<dyn LockRepo>::new(store().await, observers);
    let (_, save) = prepared(&load(&observed).await, 10, slot("k", None));
    observed.save(save).await.expect("saved");
    assert_eq!(*recorder.saves.lock().expect("no panic"), [1]);
    assert_eq!(recorder.calls(), ["store load ok", "store save ok"]);
}
