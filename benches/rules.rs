//! The policy without I/O: a decision on a write and the application of its event, with few and with many open writes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keywright_benches::lock_with;
use keywright_domain::model::ShadowVersion;
use keywright_domain::policy;
use keywright_domain::policy::{Limits, OwnerAccess, WriteDecision, WriteKey};
use keywright_testkit::samples::{NOW, lock_id, prepared, principal, slot};

fn decide(criterion: &mut Criterion) {
    let (principal, limits) = (principal(), Limits::default());
    let command = WriteKey {
        lock: lock_id(1),
        slot: slot("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", Some(50)),
    };
    let mut group = criterion.benchmark_group("rules");
    for open in [0, 15] {
        let snapshot = lock_with(1, open);
        group.bench_function(format!("decide, {open} open writes"), |b| {
            b.iter(|| {
                policy::decide_write(
                    black_box(Some(&snapshot)),
                    &command,
                    &principal,
                    &OwnerAccess,
                    &limits,
                    NOW,
                )
            });
        });
        let decided = policy::decide_write(
            Some(&snapshot),
            &command,
            &principal,
            &OwnerAccess,
            &limits,
            NOW,
        );
        assert!(matches!(decided, Ok(WriteDecision::Write(_))));
        let (write, _) = prepared(&snapshot, 1000, command.slot.clone());
        group.bench_function(format!("commit and apply, {open} open writes"), |b| {
            b.iter(|| {
                let accepted = ShadowVersion(99);
                let (_, save) =
                    policy::commit(black_box(&snapshot), &write, accepted, &[], &limits, NOW);
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
