//! What the decorators answer when a call takes too long or goes wrong.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::*;
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_testkit::samples::{created, lock_id, prepared, slot, thing};

const LIMIT: Duration = Duration::from_secs(1);

fn plan(text: &str) -> FaultPlan {
    text.parse().expect("a plan")
}

fn token(n: u32) -> ClientToken {
    ClientToken::new(WriteId::from_u128(1), Epoch(1), n)
}

fn door() -> ThingName {
    thing(lock_id(1))
}

#[tokio::test(start_paused = true)]
async fn an_update_that_takes_too_long_is_unknown_and_may_be_applied() {
    let real: Arc<dyn ShadowPort> = Arc::new(InMemoryShadow::of_this_process());
    let slow = FaultyShadow::with(
        real.clone(),
        Faults::new(plan("update@1=late:5s,update@2=delay:5s,read@1=delay:5s")),
    );
    let shadow: Timeout<dyn ShadowPort> = Timeout::new(Arc::new(slow), LIMIT);
    for n in 0..2 {
        let answer = shadow.update(&door(), ShadowChange::create(token(n))).await;
        assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    }
    assert!(matches!(
        shadow.read(&door(), token(3)).await,
        Err(ShadowError::Unknown(_))
    ));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let found = real.read(&door(), token(4)).await.expect("read");
    // The late one arrived; the delayed one was given up before it was sent.
    assert_eq!(found.map(|f| f.version), Some(ShadowVersion(1)));
}

#[tokio::test(start_paused = true)]
async fn a_save_that_takes_too_long_is_unknown_and_a_load_is_not_available() {
    let real = Arc::new(InMemoryLockRepo::new(Arc::new(TokioTimer::default())));
    real.import(vec![created(lock_id(1))])
        .await
        .expect("imported");
    let snapshot = real
        .load(lock_id(1))
        .await
        .expect("loaded")
        .expect("the lock");
    let (_, save) = prepared(&snapshot, 10, slot("k", None));
    let slow = FaultyLockRepo::new(real, Faults::new(plan("save@1=delay:5s,load@1=delay:5s")));
    let repo: Timeout<dyn LockRepo> = Timeout::new(Arc::new(slow), LIMIT);
    assert!(matches!(repo.save(save).await, Err(RepoError::Unknown(_))));
    assert!(matches!(
        repo.load(lock_id(1)).await,
        Err(RepoError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_store_that_fails_says_whether_it_may_have_saved() {
    let real = Arc::new(InMemoryLockRepo::new(Arc::new(TokioTimer::default())));
    real.import(vec![created(lock_id(1))])
        .await
        .expect("imported");
    let faults = Faults::new(plan(
        "save@1=refuse,save@2=lose,save@3=drop-answer,load@1=refuse",
    ));
    let repo = FaultyLockRepo::new(real.clone(), faults);
    let load = || async {
        real.load(lock_id(1))
            .await
            .expect("loaded")
            .expect("the lock")
    };
    let before = load().await;
    let (_, save) = prepared(&before, 10, slot("k", None));
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unavailable(_))
    ));
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unknown(_))
    ));
    assert_eq!(load().await, before);
    assert!(matches!(
        repo.save(save.clone()).await,
        Err(RepoError::Unknown(_))
    ));
    assert_eq!(
        load().await.unfinished.len(),
        1,
        "saved, though nobody was told"
    );
    assert!(repo.load(lock_id(1)).await.is_err());
    assert!(repo.load(lock_id(1)).await.is_ok());
}

#[tokio::test]
async fn a_watcher_sees_what_was_saved_and_nothing_else() {
    let real = Arc::new(InMemoryLockRepo::new(Arc::new(TokioTimer::default())));
    real.import(vec![created(lock_id(1))])
        .await
        .expect("imported");
    let (tell, mut saved) = tokio::sync::broadcast::channel(8);
    let watched = Watched::new(real.clone(), tell);
    let snapshot = watched
        .load(lock_id(1))
        .await
        .expect("loaded")
        .expect("the lock");
    let (write, save) = prepared(&snapshot, 10, slot("k", None));
    watched.save(save.clone()).await.expect("saved");
    assert_eq!(watched.save(save).await, Err(RepoError::Stale));
    assert_eq!(saved.try_recv().ok().as_deref(), Some(&write));
    assert!(
        saved.try_recv().is_err(),
        "a save that was not taken is no news"
    );
}
