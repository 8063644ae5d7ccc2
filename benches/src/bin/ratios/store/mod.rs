//! What a store adds to its database: load, prepare and commit, beside the same rows without a store.

mod memory;
mod postgres;
mod sqlite;

use keywright_domain::model::ShadowVersion;
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};

use crate::many;

pub(crate) use memory::row as memory;
pub(crate) use postgres::row as postgres;
pub(crate) use sqlite::row as sqlite;

const LOCKS: u64 = 2_000;

/// The `data` of an event of these writes.
const EVENT_DATA: &str = r#"{"lockId":1,"uuid":"6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11","timestamp":"2026-05-29T12:00:00.000Z","keyUuid":"key","keyIndexNumber":0}"#;

async fn add_locks(repo: &impl LockHistory) {
    let locks = (1..=LOCKS).map(|id| created(lock_id(id))).collect();
    repo.import(locks).await.expect("imported");
}

/// Writes a second: 64 at a time, each loaded, prepared and committed.
async fn writes(repo: impl LockRepo + Clone + 'static, count: u64) -> f64 {
    many::a_second(count, move |number| {
        let repo = repo.clone();
        async move {
            let lock = lock_id(number % LOCKS + 1);
            let known = repo.load(lock).await.expect("loaded").expect("a lock");
            let (write, save) = prepared(&known, u128::from(number + 1), slot("key", Some(0)));
            repo.save(save).await.expect("prepared");
            let mut known = known;
            known.revision = known.revision.next();
            known.unfinished.push(write.clone());
            let (limits, version) = (Limits::default(), ShadowVersion(number + 2));
            let (_, save) = policy::commit(&known, &write, version, &[], &limits, NOW);
            repo.save(save).await.expect("committed");
        }
    })
    .await
}
