//! The policy without I/O: deciding on a write, and applying its event.

use std::hint::black_box;
use std::time::Instant;

use keywright_benches::{lock_with, next_event};
use keywright_domain::model::LockEvent;
use keywright_domain::model::LockVersion;
use keywright_domain::policy::{self, Limits, OwnerAccess, WriteDecision, WriteKey};
use keywright_testkit::samples::{NOW, lock_id, principal, slot};

use crate::table::{Row, Target, median};

const ROUNDS: usize = 7;
const TIMES: u64 = 200_000;

pub(crate) fn row() -> Row {
    let mut limits = Limits::default();
    limits.max_open_writes = 32;
    let (mut snapshot, principal) = (lock_with(100, 16), principal());
    let command = WriteKey {
        lock: lock_id(1),
        slot: slot("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", Some(50)),
    };
    let mut event = next_event(
        &snapshot.lock,
        LockEvent::KeyWriteRequested(command.slot.clone()),
    );
    let rounds = (0..ROUNDS).map(|_| {
        #[expect(clippy::disallowed_methods, reason = "benches measure time")]
        let start = Instant::now();
        for _ in 0..TIMES {
            let snapshot_ref = black_box(Some(&snapshot));
            let decided = policy::decide_write(
                snapshot_ref,
                &command,
                &principal,
                &OwnerAccess,
                &limits,
                NOW,
            );
            assert!(matches!(decided, Ok(WriteDecision::Write(_))));
            black_box(&decided);
            event.version = LockVersion(snapshot.lock.version.0 + 1);
            snapshot.lock.apply(&event).expect("the next event");
        }
        #[expect(clippy::cast_precision_loss, reason = "a round number")]
        let each = start.elapsed().as_secs_f64() * 1e9 / TIMES as f64;
        each
    });
    let nanos = median(rounds.collect());
    Row {
        what: "`decide` and `apply`, a lock with 100 keys and 16 open writes".into(),
        measured: format!("{nanos:.0} ns"),
        reference: "1 µs".into(),
        figure: nanos / 1000.0,
        target: Target::AtMost(1.0),
    }
}
