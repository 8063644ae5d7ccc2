//! Locks whose answers break the device contract, as clients and operators see it.

use keywright_mqtt::mosquitto::Mosquitto;
use serde_json::{Value, json};

use crate::harness::{LOCK, eventually};
use crate::on_broker::OnBroker;

/// Shadows without locks on them: the test plays the lock.
async fn start() -> OnBroker {
    let broker = Mosquitto::start();
    OnBroker::start_on(broker, None, "shadow", &[], &["--confirm-within", "1s"]).await
}

/// Updates the lock's shadow, as the lock or anybody on the broker can.
fn update(world: &OnBroker, state: &Value) {
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    let body = json!({ "state": state }).to_string();
    world.broker.publish(&topic, &body, false);
}

fn answer(world: &OnBroker, id: &str, result: &Value) {
    let reported = json!({ "writeKeyResult": { id: result } });
    update(
        world,
        &json!({ "desired": { "writeKey": { id: null } }, "reported": reported }),
    );
}

async fn until(world: &OnBroker, id: &str, anomalies: &[&str]) -> Value {
    let path = format!("/locks/{LOCK}/writes/{id}");
    eventually(&format!("{id} has {anomalies:?}"), || async {
        let status = world.program.get(&path).send().await.body;
        (status["anomalies"] == json!(anomalies)).then_some(status)
    })
    .await
}

async fn metric(world: &OnBroker, series: &str) -> f64 {
    let answer = world.program.request("GET", "/metrics").send().await;
    let value = answer.text.lines().find_map(|l| l.strip_prefix(series));
    let value = value.unwrap_or_else(|| panic!("{series} in {}", answer.text));
    value.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_break_the_device_contract_are_shown_at_the_write_in_the_log_and_in_metrics() {
    let world = start().await;
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 7 });
    let written = world.program.write_key(LOCK, &body).send().await;
    let id = written.write_id();
    let unreadable = json!({ "writeKeyResult": { &id: "SUCCESS" } });
    update(&world, &json!({ "reported": unreadable }));
    let status = until(&world, &id, &["UnreadableResult"]).await;
    assert_eq!(status["state"], "SENT");

    answer(
        &world,
        &id,
        &json!({ "status": "SUCCEEDED", "keyIndexNumber": 77 }),
    );
    let status = until(&world, &id, &["UnreadableResult", "OtherSlot"]).await;
    let shown = |member: &str| status[member].clone();
    assert_eq!(shown("state"), "SUCCEEDED");
    assert_eq!(shown("keyIndexNumber"), 7);
    assert_eq!(shown("reportedKeyIndexNumber"), 77);

    answer(
        &world,
        &id,
        &json!({ "status": "FAILED", "reason": "NoSpace" }),
    );
    let all = ["UnreadableResult", "ContradictingResult", "OtherSlot"];
    let status = until(&world, &id, &all).await;
    assert_eq!(status["state"], "SUCCEEDED", "the first answer stays");

    let log = world.program.log();
    for anomaly in all {
        let series = format!(r#"keywright_report_anomalies_total{{anomaly="{anomaly}"}}"#);
        assert_eq!(metric(&world, &series).await, 1.0, "{anomaly}");
        let line = log.lines().find(|line| line.contains(anomaly));
        let line = line.unwrap_or_else(|| panic!("{anomaly} in {log}"));
        assert!(
            line.contains("WARN") && line.contains(&format!("lock={LOCK}")),
            "{line}"
        );
    }
    let none = r#"keywright_report_anomalies_total{anomaly="MissingSlot"}"#;
    assert_eq!(metric(&world, none).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_somebody_else_is_counted_and_taken_off() {
    const STRANGER: &str = "0000bad0-0000-4000-8000-000000000bad";
    let world = start().await;
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 7 });
    assert_eq!(
        world.program.write_key(LOCK, &body).send().await.status,
        200
    );
    let entry = json!({ "keyUuid": "x", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    update(
        &world,
        &json!({ "desired": { "writeKey": { STRANGER: entry } } }),
    );
    let series = r#"keywright_audit_findings_total{finding="UnknownEntry"}"#;
    eventually("the entry is found", || async {
        (metric(&world, series).await >= 1.0).then_some(())
    })
    .await;
    let log = world.program.log();
    let line = log.lines().find(|line| line.contains(STRANGER));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(&format!("lock={LOCK}")), "{line}");
    assert!(line.contains("repaired=true"), "{line}");
}
