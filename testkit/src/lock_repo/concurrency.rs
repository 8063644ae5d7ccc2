//! Many at once, and take-overs.

use std::future::Future;

use keywright_domain::model::{
    Epoch, FailureReason, Lock, ShadowVersion, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_domain::ports::RepoError;

use super::StoreFixture;
use crate::samples::{LEASE, NOW, prepared, slot};

/// How many tasks come at once in the cases about concurrency.
const TASKS: u128 = 64;

/// Runs one task for each number, all at once, and answers what they answer in the order of the numbers.
async fn at_once<T, F>(numbers: impl Iterator<Item = u128>, task: impl Fn(u128) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = numbers.map(|n| tokio::spawn(task(n))).collect();
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(task.await.expect("the task does not panic"));
    }
    answers
}

/// Of many saves at once that were decided on one revision, one is taken.
pub async fn of_saves_at_once_one_is_taken(store: &StoreFixture) {
    let snapshot = store.with_lock(1).await;
    let saved = at_once(0..TASKS, |n| {
        let (_, save) = prepared(&snapshot, 100 + n, slot("key", None));
        let locks = store.locks.clone();
        async move { locks.save(save).await }
    });
    let (taken, others): (Vec<_>, Vec<_>) = saved.await.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 1, "{others:?}");
    assert!(
        others.iter().all(|o| *o == Err(RepoError::Stale)),
        "{others:?}"
    );
    assert_eq!(store.load(1).await.unfinished.len(), 1);
}

/// Many tasks write to one lock, each prepares and commits: there is never a second intent, and no write is lost.
pub async fn many_tasks_on_one_lock_lose_nothing(store: &StoreFixture) {
    store.with_lock(1).await;
    store.send(1, 1).await;
    at_once(0..TASKS, |n| {
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

/// Many tasks write to a lock each: none of them has to decide again because of another.
pub async fn many_tasks_on_many_locks_do_not_meet(store: &StoreFixture) {
    for n in 0..TASKS {
        store.with_lock(1 + n as u64).await;
    }
    at_once(0..TASKS, |n| {
        let store = store.clone();
        async move { store.send(1 + n as u64, 100 + n).await }
    })
    .await;
    for n in 0..TASKS {
        assert_eq!(store.events(1 + n as u64).await.len(), 2);
    }
}

/// Many owners claim at once: each overdue write has one of them, and the others have nothing.
pub async fn of_claims_at_once_each_takes_another_write(store: &StoreFixture) {
    const OVERDUE: u128 = 8;
    for n in 0..OVERDUE {
        store.with_lock(1 + n as u64).await;
        store.prepare(1 + n as u64, 100 + n).await;
    }
    store.end_leases().await;
    let claimed = at_once(0..TASKS, |n| {
        let locks = store.locks.clone();
        async move { locks.claim(WorkerId(1000 + n), LEASE).await }
    });
    let claimed = claimed.await.into_iter();
    let claimed = claimed.filter_map(|claim| claim.expect("the store answers"));
    let mut ids: Vec<u128> = claimed.map(|write| write.id.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (100..100 + OVERDUE).collect::<Vec<_>>());
}

/// A claimed write whose lease ends again is taken over again, by anybody, in the next epoch.
pub async fn a_take_over_is_taken_over(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    for (owner, epoch) in [(8, 2), (9, 3), (8, 4)] {
        store.end_leases().await;
        let claimed = store.locks.claim(WorkerId(owner), LEASE).await;
        let claimed = claimed.expect("the store answers");
        let claimed = claimed.unwrap_or_else(|| panic!("epoch {epoch} does not come"));
        let intent = claimed.intent().expect("still prepared");
        assert_eq!(
            (claimed.id, intent.worker, intent.epoch),
            (write.id, WorkerId(owner), Epoch(epoch))
        );
        let stored = store.load(1).await;
        let stored = stored.unfinished(write.id).and_then(Write::intent);
        assert_eq!(stored, Some(intent));
    }
}

/// The owner's save and a take-over at the same moment: one of them comes too late.
pub async fn a_save_and_a_take_over_exclude_each_other(store: &StoreFixture) {
    for lock in 1..=32 {
        store.with_lock(lock).await;
        let write = store.prepare(lock, 100 + u128::from(lock)).await;
        let known = store.load(lock).await;
        store.end_leases().await;
        let save = policy::abort(&known, &write, &FailureReason::Throttled, None, NOW);
        let (saver, claimer) = (store.locks.clone(), store.locks.clone());
        let saving = tokio::spawn(async move { saver.save(save).await });
        let claiming = tokio::spawn(async move { claimer.claim(WorkerId(8), LEASE).await });
        let saved = saving.await.expect("the task does not panic");
        let claimed = claiming.await.expect("the task does not panic");
        match (saved, claimed) {
            (Ok(()), Ok(None)) => {}
            (Err(RepoError::Stale), Ok(Some(taken))) => {
                let known = store.load(lock).await;
                let save = policy::abort(&known, &taken, &FailureReason::Throttled, None, NOW);
                store.locks.save(save).await.expect("it is the owner's now");
            }
            both => panic!("lock {lock}: {both:?}"),
        }
    }
}

/// A write whose outcome is known is nobody's to take over.
pub async fn a_closed_intent_is_never_claimed(store: &StoreFixture) {
    for (lock, write) in [(1, 10), (2, 11)] {
        store.with_lock(lock).await;
        store.send(lock, write).await;
    }
    let aborted = store.prepare(1, 12).await;
    let snapshot = store.load(1).await;
    let save = policy::abort(&snapshot, &aborted, &FailureReason::Throttled, None, NOW);
    store.locks.save(save).await.expect("the abort is saved");
    store.end_leases().await;
    assert_eq!(store.locks.claim(WorkerId(8), LEASE).await, Ok(None));
}

impl StoreFixture {
    /// Prepares and commits a write of lock 1 in whatever turn it gets.
    async fn write_among_others(&self, id: u128) {
        loop {
            let snapshot = self.load(1).await;
            let intents = snapshot.unfinished.iter().filter(|w| w.intent().is_some());
            assert!(intents.count() <= 1, "two intents are open");
            let ours = snapshot.unfinished(WriteId::from_u128(id));
            let save = match (ours, snapshot.prepared()) {
                (Some(ours), _) if ours.is_open() => return,
                (Some(ours), _) => {
                    let limits = Limits::default();
                    policy::commit(&snapshot, ours, ShadowVersion(5), &[], &limits, NOW).1
                }
                (None, None) => prepared(&snapshot, id, slot("key", None)).1,
                (None, Some(_)) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            match self.locks.save(save).await {
                Ok(()) | Err(RepoError::Stale) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
