//! Cases for concurrent saves and claims.

use keywright_domain::model::{FailureReason, Lock, WorkerId, WriteId};
use keywright_domain::policy::{self, Limits};
use keywright_domain::ports::RepoError;
use tokio::task::JoinSet;

use super::fixture::StoreFixture;
use crate::samples::{LEASE, NOW, SHADOW_VERSION, prepared, slot};

/// The number of concurrent tasks.
const TASKS: u128 = 64;

/// Runs a task for each of [`TASKS`] numbers concurrently and returns their outputs in any order.
async fn run_concurrently<T, F>(task: impl Fn(u128) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: JoinSet<T> = (0..TASKS).map(task).collect();
    tasks.join_all().await
}

/// Of concurrent saves that name the same revision, exactly one is applied.
pub async fn exactly_one_of_concurrent_saves_is_applied(store: &StoreFixture) {
    let snapshot = store.with_lock(1).await;
    let saved = run_concurrently(|n| {
        let (_, save) = prepared(&snapshot, 100 + n, slot("key", None));
        let locks = store.locks().clone();
        async move { locks.save(save).await }
    });
    let (applied, others): (Vec<_>, Vec<_>) = saved.await.into_iter().partition(Result::is_ok);
    assert_eq!(applied.len(), 1, "{others:?}");
    assert!(
        others.iter().all(|o| *o == Err(RepoError::Stale)),
        "{others:?}"
    );
    assert_eq!(store.load(1).await.unfinished.len(), 1);
}

/// Many tasks write to one lock, and each prepares and commits a write. The lock never has two intents, and no write is lost.
pub async fn concurrent_writes_of_one_lock_lose_nothing(store: &StoreFixture) {
    store.with_lock(1).await;
    store.send(1, 1).await;
    run_concurrently(|n| {
        let store = store.clone();
        async move { store.write_among_others(100 + n).await }
    })
    .await;
    let events = store.events(1).await;
    let versions: Vec<u64> = events.iter().map(|e| e.version.0).collect();
    assert_eq!(versions, (1..=2 + TASKS as u64).collect::<Vec<_>>());
    let mut writes: Vec<u128> = events
        .iter()
        .filter_map(|e| Some(e.write?.as_u128()))
        .collect();
    writes.sort_unstable();
    let all: Vec<u128> = std::iter::once(1).chain(100..100 + TASKS).collect();
    assert_eq!(writes, all);
    assert_eq!(Ok(store.load(1).await.lock), Lock::fold(&events));
}

/// Many tasks write to one lock each, and no save is stale because of another lock.
pub async fn concurrent_writes_of_many_locks_do_not_conflict(store: &StoreFixture) {
    for n in 0..TASKS {
        store.with_lock(1 + n as u64).await;
    }
    run_concurrently(|n| {
        let store = store.clone();
        async move { store.send(1 + n as u64, 100 + n).await }
    })
    .await;
    for n in 0..TASKS {
        assert_eq!(store.events(1 + n as u64).await.len(), 2);
    }
}

/// Of concurrent claims, each takes another write whose lease has ended, and the others take none.
pub async fn concurrent_claims_take_different_writes(store: &StoreFixture) {
    const OVERDUE: u128 = 8;
    for n in 0..OVERDUE {
        store.with_lock(1 + n as u64).await;
        store.prepare(1 + n as u64, 100 + n).await;
    }
    store.end_leases().await;
    let claimed = run_concurrently(|n| {
        let locks = store.locks().clone();
        async move { locks.claim(WorkerId(1000 + n), LEASE).await }
    });
    let claimed = claimed.await.into_iter();
    let claimed = claimed.filter_map(|claim| claim.expect("the store answers"));
    let mut ids: Vec<u128> = claimed.map(|write| write.id.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (100..100 + OVERDUE).collect::<Vec<_>>());
}

/// A save of the worker and a claim of its intent run concurrently, and exactly one of them succeeds.
pub async fn only_one_of_save_and_claim_succeeds(store: &StoreFixture) {
    for lock in 1..=32 {
        store.with_lock(lock).await;
        let write = store.prepare(lock, 100 + u128::from(lock)).await;
        let known = store.load(lock).await;
        store.end_leases().await;
        let save = policy::abort(&known, &write, &FailureReason::Throttled, None, NOW);
        let (saver, claimer) = (store.locks().clone(), store.locks().clone());
        let saving = tokio::spawn(async move { saver.save(save).await });
        let claiming = tokio::spawn(async move { claimer.claim(WorkerId(8), LEASE).await });
        let saved = saving.await.expect("the task does not panic");
        let claimed = claiming.await.expect("the task does not panic");
        match (saved, claimed) {
            (Ok(()), Ok(None)) => {}
            (Err(RepoError::Stale), Ok(Some(claimed))) => store.abort(lock, &claimed).await,
            both => panic!("lock {lock}: {both:?}"),
        }
    }
}

impl StoreFixture {
    /// Prepares and commits a write of lock 1, and repeats each save until it is not stale.
    async fn write_among_others(&self, id: u128) {
        loop {
            let snapshot = self.load(1).await;
            let intents = snapshot.unfinished.iter().filter(|w| w.intent().is_some());
            assert!(intents.count() <= 1, "two intents are open");
            // No write supersedes another, so each event but the first belongs to an open write.
            let open = snapshot.open().count() as u64;
            assert_eq!(open + 1, snapshot.lock.version.0, "parts of two revisions");
            let ours = snapshot.unfinished(WriteId::from_u128(id));
            let save = match (ours, snapshot.prepared()) {
                (Some(ours), _) if ours.is_open() => return,
                (Some(ours), _) => {
                    let limits = Limits::default();
                    policy::commit(&snapshot, ours, SHADOW_VERSION, &[], &limits, NOW).1
                }
                (None, None) => prepared(&snapshot, id, slot("key", None)).1,
                (None, Some(_)) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            match self.locks().save(save).await {
                Ok(()) | Err(RepoError::Stale) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
