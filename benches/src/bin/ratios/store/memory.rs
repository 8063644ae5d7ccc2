//! The store in memory, beside a map of what a load answers: the same rules, and nothing that a store promises.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{Lock, LockSnapshot, Revision, ShadowVersion, Write};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};

use super::{LOCKS, add_locks, writes};
use crate::many::{AT_ONCE, medians, now, rate};
use crate::{Row, Target};

const WRITES: u64 = 500 * AT_ONCE;

async fn ours() -> f64 {
    let repo = InMemoryLockRepo::new(Arc::new(TokioTimer::default()));
    add_locks(&repo).await;
    writes(repo, WRITES).await
}

fn bare() -> f64 {
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
    (ours().await, bare())
}

pub(crate) async fn row() -> Row {
    let (own, alone) = medians(run).await;
    Row {
        what: "`LockRepo` in memory: load, prepare and commit, 64 at once".into(),
        measured: format!("{own:.0} a second"),
        beside: format!("the rules and a map under a mutex: {alone:.0}"),
        figure: own / alone,
        target: Target::None,
    }
}
