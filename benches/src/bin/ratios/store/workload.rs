//! The workload of the store benches: load, prepare and commit.

use keywright_domain::model::ShadowVersion;
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};

use crate::concurrent;

pub(super) const LOCKS: u64 = 2_000;

/// The JSON data of an event of these writes.
pub(super) const EVENT_DATA: &str = r#"{"lockId":1,"uuid":"6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11","timestamp":"2026-05-29T12:00:00.000Z","keyUuid":"key","keyIndexNumber":0}"#;

pub(super) async fn add_locks(repo: &impl LockHistory) {
    let locks = (1..=LOCKS).map(|id| created(lock_id(id))).collect();
    repo.import(locks).await.expect("imported");
}

/// Makes `count` writes, 64 at a time: each loads a lock, prepares and commits. Returns the writes for each second.
pub(super) async fn writes_per_second(repo: impl LockRepo + Clone + 'static, count: u64) -> f64 {
    concurrent::per_second(count, move |number| {
        let repo = repo.clone();
        async move {
            let lock = lock_id(number % LOCKS + 1);
            let snapshot = repo.load(lock).await.expect("loaded").expect("a lock");
            let (write, save) = prepared(&snapshot, u128::from(number + 1), slot("key", Some(0)));
            repo.save(save).await.expect("prepared");
            let mut snapshot = snapshot;
            snapshot.revision = snapshot.revision.next();
            snapshot.unfinished.push(write.clone());
            let (limits, version) = (Limits::default(), ShadowVersion(number + 2));
            let (_, save) = policy::commit(&snapshot, &write, version, &[], &limits, NOW);
            repo.save(save).await.expect("committed");
        }
    })
    .await
}
