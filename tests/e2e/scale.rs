//! A thousand locks on one broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use keywright_sandbox::read_memories;
use keywright_tests::{Connection, Request};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::eventually;
use crate::on_broker::OnBroker;

const FIRST: u64 = 1001;
const LOCKS: u64 = 1000;
const ROUNDS: u64 = 10;

/// Writes at once.
const CLIENTS: usize = 64;

/// From this round on memory is compared: by then the store's caches of pages are nearly full.
const FULL_CACHES: u64 = 6;

/// How much memory may grow from that round to the last: 1.1 times, in tenths.
const MOST_GROWTH: u64 = 11;

/// Writes each lock its own key, and waits until all have confirmed theirs.
async fn round(world: &OnBroker, round: u64) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut writing = JoinSet::new();
    for lock in FIRST..FIRST + LOCKS {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let address = world.program.address;
        let body = json!({ "keyUuid": format!("key-{lock}-{round}"), "keyIndexNumber": 7 });
        let request = Request::new(address, "POST", &format!("/locks/{lock}/WriteKey"))
            .bearer(&world.program.token)
            .header("Prefer", "wait=30")
            .json(&body);
        writing.spawn(async move {
            let mut connection = Connection::open(address).await.expect("a connection");
            let answer = connection.send(request).await.expect("an answer");
            drop(place);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
        });
    }
    while let Some(written) = writing.join_next().await {
        written.expect("written and confirmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_locks_get_their_own_keys_and_memory_stays_as_it_is() {
    let locks = LOCKS.to_string();
    let sandbox = [
        "--locks",
        &locks,
        "--behaviour",
        "all:latency=0s",
        "--log-level",
        "warn",
    ];
    // Patience for a machine that has other things to do; results are cleared while it goes on.
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
    let world = OnBroker::start_plain(&sandbox, &serve).await;
    let shadows = world.shadows.as_ref().expect("they run");
    let mut resident = BTreeMap::new();
    for n in 1..=ROUNDS {
        round(&world, n).await;
        resident.insert(n, (world.program.resident(), shadows.resident()));
    }
    println!("resident kilobytes of server and shadows, by round: {resident:?}");
    let (early, late) = (resident[&FULL_CACHES], resident[&ROUNDS]);
    for (what, early, late) in [("server", early.0, late.0), ("shadows", early.1, late.1)] {
        assert!(
            late * 10 <= early * MOST_GROWTH,
            "the {what} grew: {resident:?}"
        );
    }
    let file = world.shadow_folder.path().join("virtual-locks.sqlite");
    // What was answered is on the locks' disk before they say so.
    let memories = read_memories(&file).expect("their memories");
    for lock in FIRST..FIRST + LOCKS {
        let expected = BTreeMap::from([(7, format!("key-{lock}-{ROUNDS}"))]);
        assert_eq!(
            memories[&format!("demo-lock-{lock}")].keys,
            expected,
            "lock {lock}"
        );
    }
    let all: Vec<u64> = (FIRST..FIRST + LOCKS).collect();
    eventually("the books balance", || async {
        world.books().await.check_at_rest(&all).await.ok()
    })
    .await;
}
