//! Helpers of the benches: sample locks, and a bare hyper server for comparison.

pub mod bare_hyper;

use keywright_domain::model::{
    HeldKey, Lock, LockEvent, LockSnapshot, LockVersion, RecordedEvent, Revision, ShadowVersion,
};
use keywright_domain::policy;
use keywright_domain::policy::Limits;
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};

/// A lock with this number of keys and of open writes.
///
/// # Panics
/// The domain refuses the samples.
pub fn lock_with(keys: u64, open: u64) -> LockSnapshot {
    let lock = Lock::fold(&[created(lock_id(1))]).expect("a lock");
    let mut snapshot = LockSnapshot {
        lock,
        revision: Revision(1),
        shadow_version: Some(ShadowVersion(1)),
        unfinished: Vec::new(),
        uncleared: Vec::new(),
    };
    for n in 1..keys {
        let slot = slot(&format!("held-{n}"), Some(n));
        let held = HeldKey {
            key: slot.key,
            index: slot.index,
            user: None,
        };
        let event = next_event(&snapshot.lock, LockEvent::KeyAdded(held));
        snapshot.lock.apply(&event).expect("the next event");
    }
    for n in 0..open {
        let slot = slot(&format!("key-{n}"), Some(n));
        let (write, _) = prepared(&snapshot, u128::from(n + 1), slot);
        let (limits, version) = (Limits::default(), ShadowVersion(n + 2));
        let (sent, save) = policy::commit(&snapshot, &write, version, &[], &limits, NOW);
        for event in &save.events {
            snapshot.lock.apply(event).expect("the next event");
        }
        snapshot.unfinished.push(sent);
        snapshot.revision = snapshot.revision.next();
    }
    snapshot
}

/// The next event of a lock.
pub fn next_event(lock: &Lock, event: LockEvent) -> RecordedEvent {
    RecordedEvent {
        version: LockVersion(lock.version.0 + 1),
        event,
        ..created(lock.id)
    }
}
