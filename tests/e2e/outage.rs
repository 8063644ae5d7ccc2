//! Outages under load: of the broker, the shadow service and the server, and lost messages.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{WriteId, WriteState};
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_tests::StoreInspector;
use serde_json::json;

use crate::answer_log;
use crate::answer_log::{LoadControl, LoggedAnswer};
use crate::broker_harness::BrokerHarness;
use crate::harness::{LOCK, eventually};

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 6;

/// The longest time that recovery may take: the lease, five seconds, the check after `--confirm-within`, and a reserve.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time that an intent may be open during the outages.
const MAX_INTENT_AGE: Duration = Duration::from_secs(40);

/// Runs clients while `disturb` causes outages, and returns their answers.
async fn under_load(
    harness: &mut BrokerHarness,
    disturb: impl AsyncFnOnce(&mut BrokerHarness, &LoadControl),
) -> Vec<LoggedAnswer> {
    let control = Arc::<LoadControl>::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let target = (harness.program.address, harness.program.api_key.clone());
            tokio::spawn(answer_log::load(
                target,
                format!("c{client}"),
                LOCKS,
                control.clone(),
            ))
        })
        .collect();
    disturb(harness, &control).await;
    control.stop();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("a client"));
    }
    all
}

/// Waits until all invariants hold, each 504 is decided and each write has ended, and returns the store.
async fn wait_for_recovery(harness: &BrokerHarness, answers: &[LoggedAnswer]) -> StoreInspector {
    let locks: Vec<u64> = LOCKS.collect();
    let start = tokio::time::Instant::now();
    loop {
        let store = harness.store().await;
        let checked = store
            .check_when_idle(&locks)
            .await
            .and(all_ended(&store).await);
        match checked {
            Ok(()) => {
                answer_log::check(&store, answers, LOCKS, MAX_INTENT_AGE)
                    .await
                    .expect("nothing is lost");
                answer_log::check_504s(&store, answers)
                    .await
                    .expect("each 504 is decided");
                return store;
            }
            Err(why) if start.elapsed() > RECOVERY_TIMEOUT => panic!("{why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Checks that no write is open.
async fn all_ended(store: &StoreInspector) -> Result<(), String> {
    for id in store.write_ids() {
        let write = store.write(id).await;
        if matches!(
            write.state,
            WriteState::Prepared(_) | WriteState::Sent | WriteState::InProgress
        ) {
            return Err(format!("{id} is still {:?}", write.state));
        }
    }
    Ok(())
}

/// Asserts that no aborted write reached a lock. The virtual locks log each write.
async fn assert_no_aborted_write_reached_a_lock(harness: &BrokerHarness, store: &StoreInspector) {
    let log = harness.shadow_log();
    assert!(
        log.contains("virtual lock has the key"),
        "the locks log their writes"
    );
    let mut aborted = 0;
    for id in store.write_ids() {
        if matches!(store.write(id).await.state, WriteState::Aborted { .. }) {
            aborted += 1;
            assert!(
                !log.contains(&id.to_string()),
                "an aborted write reached its lock: {id}"
            );
        }
    }
    assert!(aborted > 0, "some writes were aborted");
}

fn count(answers: &[LoggedAnswer]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for logged in answers {
        *counts.entry(logged.answer.status).or_default() += 1;
    }
    counts
}

const SERVE: [&str; 6] = [
    "--locks",
    "20",
    "--confirm-within",
    "2s",
    "--log-level",
    "warn",
];

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_the_broker_and_the_shadow_service_lose_nothing() {
    let sandbox = ["--locks", "20", "--behaviour", "all:latency=5ms"];
    let mut harness = BrokerHarness::start(&sandbox, &SERVE).await;
    let answers = under_load(&mut harness, async |harness, control| {
        control.wait_for_more(40).await;
        for _ in 0..2 {
            harness.broker.kill();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            harness.broker.restart();
            control.wait_for_more(40).await;
        }
        // The virtual locks run in the same process; after a restart they report their results again.
        harness.restart_shadows("sandbox", &sandbox);
        control.wait_for_more(40).await;
    })
    .await;
    println!("{:?}", count(&answers));
    assert!(
        count(&answers)[&200] > 100,
        "there was load: {:?}",
        count(&answers)
    );
    assert!(
        count(&answers).contains_key(&502),
        "the outages cause 502s: {:?}",
        count(&answers)
    );
    let store = wait_for_recovery(&harness, &answers).await;
    assert_no_aborted_write_reached_a_lock(&harness, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_reports_are_recovered_under_load() {
    let disorder = "lose=0.05,repeat=0.2,shuffle=20,seed=11";
    let sandbox = [
        "--locks",
        "20",
        "--behaviour",
        "all:latency=5ms",
        "--disorder",
        disorder,
    ];
    let mut harness = BrokerHarness::start(&sandbox, &SERVE).await;
    let answers = under_load(&mut harness, async |_, control| {
        control.wait_for_more(1000).await;
    })
    .await;
    println!("{:?}", count(&answers));
    assert!(
        count(&answers)[&200] > 100,
        "there was load: {:?}",
        count(&answers)
    );
    wait_for_recovery(&harness, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_during_a_restart_of_the_server_are_settled_after_it() {
    let harness = BrokerHarness::start(&["--behaviour", "all:latency=500ms"], &[]).await;
    let answer = harness.write(LOCK, "my-key", 1, 0).await;
    let id = answer.write_id();
    let harness = harness.restart_server(Duration::from_secs(2), &[]);
    harness.wait_for_state(&id, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_the_broker_lost_is_found_on_the_shadow() {
    let mut harness = BrokerHarness::start(&["--behaviour", "all:latency=300ms"], &[]).await;
    let answer = harness.write(LOCK, "my-key", 1, 0).await;
    let id = answer.write_id();
    harness.program.kill_only();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A broker without persistence loses the session and the report.
    harness.broker.restart();
    let harness = harness.restart_server(Duration::ZERO, &[]);
    harness.wait_for_state(&id, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_an_outage_are_not_sent_after_it() {
    let mut harness = BrokerHarness::start(&["--behaviour", "all:latency=0s"], &[]).await;
    let answer = harness.write(LOCK, "before", 0, 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    harness.broker.kill();
    eventually("the server is not ready", || async {
        let answer = harness.program.request("GET", "/readyz").send().await;
        (answer.status == 503).then_some(())
    })
    .await;
    let mut refused = Vec::new();
    for n in 1..4 {
        let answer = harness
            .write(LOCK, &format!("in-the-outage-{n}"), n, 0)
            .await;
        // The outcome is unknown if the connection broke with the request under way.
        assert!([502, 503, 504].contains(&answer.status), "{answer:?}");
        refused.push(answer);
    }
    harness.broker.restart();
    harness.wait_until_ready().await;
    let answer = eventually("writes are accepted again", || async {
        let answer = harness.write(LOCK, "after", 5, 20).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    for answer in refused.iter().filter(|answer| answer.status == 504) {
        let id: WriteId = answer.write_id().parse().expect("a write id");
        eventually("the 504 is decided", || async {
            let state = harness.store().await.write(id).await.state;
            matches!(state, WriteState::Aborted { .. }).then_some(())
        })
        .await;
    }
    let log = harness.shadow_log();
    assert_eq!(log.matches("virtual lock has the key").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_504_is_decided_when_the_shadow_service_is_back() {
    let mut harness = BrokerHarness::start_on(Mosquitto::start(), None, "sandbox", &[], &[]).await;
    let answer = harness.write(LOCK, "before", 0, 20).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    harness.kill_shadows();
    let answer = harness.write(LOCK, "no-answer", 1, 0).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    harness.restart_shadows("sandbox", &[]);
    harness.wait_for_state(&answer.write_id(), "ABORTED").await;
}

/// The report of a lock waits at the broker while the shadow service is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_during_an_outage_of_the_shadow_service_is_settled_after_it() {
    let mut harness = BrokerHarness::start_on(Mosquitto::start(), None, "shadow", &[], &[]).await;
    let answer = harness.write(LOCK, "my-key", 1, 0).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.write_id();
    harness.kill_shadows();
    let report = json!({ "state": {
        "desired": { "writeKey": { &id: null } },
        "reported": { "writeKeyResult": { &id: { "status": "SUCCEEDED", "keyIndexNumber": 1 } } },
    } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    harness.broker.publish(&topic, &report.to_string(), false);
    harness.restart_shadows("shadow", &[]);
    harness.wait_for_state(&id, "SUCCEEDED").await;
}
