//! The store in memory, compared with a map under a mutex that uses the same policy and keeps no promises of a store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{Lock, LockSnapshot, Revision, ShadowVersion, Write};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};

use super::workload::{LOCKS, add_locks, writes_per_second};
use crate::concurrent::{CONCURRENT, medians, now, rate};
use crate::table::{Row, Target};

const WRITES: u64 = 500 * CONCURRENT;

async fn with_store() -> f64 {
    let repo = InMemoryLockRepo::new(Arc::new(TokioTimer::default()));
    add_locks(&repo).await;
    writes_per_second(repo, WRITES).await
}

fn with_map() -> f64 {
    let snapshot = |id| {
        let lock = Lock::fold(&[created(lock_id(id))]).expect("a lock");
        (id, LockSnapshot::new(lock, Revision(0), None, Vec::new()))
    };
    let map: HashMap<u64, LockSnapshot> = (1..=LOCKS).map(snapshot).collect();
    let map = Mutex::new(map);
    let start = now();
    for number in 0..WRITES {
        let lock = number % LOCKS + 1;
        let mut known = map.lock().expect("no panic")[&lock].clone();
        let (write, _) = prepared(&known, u128::from(number + 1), slot("key", Some(0)));
        known.revision = known.revision.next();
        known.unfinished.push(write.clone());
        let (limits, version) = (Limits::default(), ShadowVersion(number + 2));
        let (sent, save) = policy::commit(&known, &write, version, &[], &limits, NOW);
        known.revision = known.revision.next();
        let superseded = |w: &Write| save.writes.iter().any(|saved| saved.id == w.id);
        known.unfinished.retain(|write| !superseded(write));
        known.unfinished.push(sent);
        known.lock = *save.folded.expect("an event");
        map.lock().expect("no panic").insert(lock, known);
    }
    rate(WRITES, start)
}

async fn run() -> (f64, f64) {
    (with_store().await, with_map())
}

pub(crate) async fn row() -> Row {
    let (own, alone) = medians(run).await;
    Row {
        what: "`LockRepo` in memory: load, prepare and commit, 64 at once".into(),
        measured: format!("{own:.0} a second"),
        reference: format!("the rules and a map under a mutex: {alone:.0}"),
        figure: own / alone,
        target: Target::None,
    }
}
