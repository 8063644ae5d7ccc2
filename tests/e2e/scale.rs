//! A thousand locks on one broker: all get their keys, and the processes do not use more and more memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use keywright_sandbox::read_memories;
use keywright_tests::{Connection, Request};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::broker_harness::BrokerHarness;
use crate::harness::eventually;

const FIRST: u64 = 1001;
const LOCKS: u64 = 1000;
const ROUNDS: u64 = 10;

const CONCURRENT_WRITES: usize = 64;

/// The memory after the last round is compared with that after this round, when the page caches of the store are nearly full.
const COMPARED_ROUND: u64 = 6;

/// The last round may use at most 1.1 times the memory of the compared round.
const MAX_RATIO_PERCENT: u64 = 110;

/// Writes a different key to each lock, and waits until all are confirmed.
async fn write_to_all_locks(harness: &BrokerHarness, round: u64) {
    let permits = Arc::new(Semaphore::new(CONCURRENT_WRITES));
    let mut writes = JoinSet::new();
    for lock in FIRST..FIRST + LOCKS {
        let permit = permits.clone().acquire_owned().await.expect("never closed");
        let address = harness.program.address;
        let body = json!({ "keyUuid": format!("key-{lock}-{round}"), "keyIndexNumber": 7 });
        let request = Request::new(address, "POST", &format!("/locks/{lock}/WriteKey"))
            .bearer(&harness.program.token)
            .header("Prefer", "wait=30")
            .json(&body);
        writes.spawn(async move {
            let mut connection = Connection::open(address).await.expect("a connection");
            let answer = connection.send(request).await.expect("an answer");
            drop(permit);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
        });
    }
    while let Some(written) = writes.join_next().await {
        written.expect("written and confirmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_locks_get_their_keys_without_growing_memory() {
    let locks = LOCKS.to_string();
    let sandbox = [
        "--locks",
        &locks,
        "--behaviour",
        "all:latency=0s",
        "--log-level",
        "warn",
    ];
    // Long timeouts, because the machine may be busy. `--clear-within 2s`, so that results are cleared while the test runs.
    let serve = [
        "--locks",
        &locks,
        "--log-level",
        "warn",
        "--clear-within",
        "2s",
        "--request",
        "20s",
        "--shadow-call",
        "5s",
        "--lease",
        "30s",
        "--turn",
        "5s",
    ];
    let harness = BrokerHarness::start_without_short_timeouts(&sandbox, &serve).await;
    let shadows = harness.shadows.as_ref().expect("the shadow service runs");
    let mut resident = BTreeMap::new();
    for n in 1..=ROUNDS {
        write_to_all_locks(&harness, n).await;
        resident.insert(n, (harness.program.resident_kib(), shadows.resident_kib()));
    }
    println!("resident kilobytes of server and shadows, by round: {resident:?}");
    let (early, late) = (resident[&COMPARED_ROUND], resident[&ROUNDS]);
    for (what, early, late) in [("server", early.0, late.0), ("shadows", early.1, late.1)] {
        assert!(
            late * 100 <= early * MAX_RATIO_PERCENT,
            "the {what} grew: {resident:?}"
        );
    }
    let file = harness.shadow_folder.path().join("virtual-locks.sqlite");
    // Every write is confirmed, and a lock stores the key before it reports, so the files are complete now.
    let memories = read_memories(&file).expect("the memories of the virtual locks");
    for lock in FIRST..FIRST + LOCKS {
        let expected = BTreeMap::from([(7, format!("key-{lock}-{ROUNDS}"))]);
        assert_eq!(
            memories[&format!("demo-lock-{lock}")].keys,
            expected,
            "lock {lock}"
        );
    }
    let all: Vec<u64> = (FIRST..FIRST + LOCKS).collect();
    eventually("the invariants hold", || async {
        harness.store().await.check_when_idle(&all).await.ok()
    })
    .await;
}
