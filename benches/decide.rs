//! The rules alone: a decision and the fold of its event, and the same with a full house of open writes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keywright_domain::lock::{Lock, LockSnapshot};
use keywright_domain::rules::{self, Decision, Limits, WriteKey};
use keywright_domain::values::{Revision, ShadowVersion};
use keywright_testkit::samples::{NOW, created, lock_id, prepared, principal, slot};

/// A lock with that many open writes.
fn lock_with(open: u64) -> LockSnapshot {
    let lock = Lock::fold(&[created(lock_id(1))]).expect("a lock");
    let mut snapshot = LockSnapshot {
        lock,
        revision: Revision(1),
        shadow_version: Some(ShadowVersion(1)),
        unfinished: Vec::new(),
        uncleared: Vec::new(),
    };
    for n in 0..open {
        let (write, _) = prepared(
            &snapshot,
            u128::from(n + 1),
            slot(&format!("key-{n}"), Some(n)),
        );
        let limits = Limits::default();
        let (sent, save) =
            rules::commit(&snapshot, &write, ShadowVersion(n + 2), &[], &limits, NOW);
        for event in &save.events {
            snapshot.lock.apply(event).expect("the next event");
        }
        snapshot.unfinished.push(sent);
        snapshot.revision = snapshot.revision.next();
    }
    snapshot
}

fn decide(criterion: &mut Criterion) {
    let (principal, limits) = (principal(), Limits::default());
    let command = WriteKey {
        lock: lock_id(1),
        slot: slot("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", Some(50)),
    };
    let mut group = criterion.benchmark_group("rules");
    for open in [0, 15] {
        let snapshot = lock_with(open);
        group.bench_function(format!("decide, {open} open writes"), |b| {
            b.iter(|| {
                rules::decide(
                    black_box(Some(&snapshot)),
                    &command,
                    &principal,
                    &limits,
                    NOW,
                )
            });
        });
        let decided = rules::decide(Some(&snapshot), &command, &principal, &limits, NOW);
        assert!(matches!(decided, Ok(Decision::Write(_))));
        let (write, _) = prepared(&snapshot, 1000, command.slot.clone());
        group.bench_function(format!("commit and apply, {open} open writes"), |b| {
            b.iter(|| {
                let accepted = ShadowVersion(99);
                let (_, save) =
                    rules::commit(black_box(&snapshot), &write, accepted, &[], &limits, NOW);
                let mut lock = snapshot.lock.clone();
                for event in &save.events {
                    lock.apply(event).expect("the next event");
                }
                lock
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
