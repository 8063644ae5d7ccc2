//! Answers of locks that break the device contract, as clients see them, and in the log and the metrics.

use keywright_mqtt::mosquitto::Mosquitto;
use serde_json::{Value, json};

use crate::broker_harness::BrokerHarness;
use crate::harness::{LOCK, eventually, log_with};

/// Starts shadows without virtual locks; the test acts as the lock.
async fn start() -> BrokerHarness {
    let broker = Mosquitto::start();
    BrokerHarness::start_on(broker, None, "shadow", &[], &["--confirm-within", "1s"]).await
}

/// Updates the lock's shadow, as any client of the broker can.
fn update(harness: &BrokerHarness, state: &Value) {
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    let body = json!({ "state": state }).to_string();
    harness.broker.publish(&topic, &body, false);
}

fn report(harness: &BrokerHarness, id: &str, result: &Value) {
    let reported = json!({ "writeKeyResult": { id: result } });
    update(
        harness,
        &json!({ "desired": { "writeKey": { id: null } }, "reported": reported }),
    );
}

async fn wait_for_anomalies(harness: &BrokerHarness, id: &str, anomalies: &[&str]) -> Value {
    let path = format!("/locks/{LOCK}/writes/{id}");
    eventually(&format!("{id} has {anomalies:?}"), || async {
        let status = harness.program.get(&path).send().await.body;
        (status["anomalies"] == json!(anomalies)).then_some(status)
    })
    .await
}

async fn metric(harness: &BrokerHarness, series: &str) -> f64 {
    let answer = harness.program.request("GET", "/metrics").send().await;
    let value = answer.text.lines().find_map(|l| l.strip_prefix(series));
    let value = value.unwrap_or_else(|| panic!("{series} in {}", answer.text));
    value.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_appear_on_the_write_in_the_log_and_in_metrics() {
    let harness = start().await;
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 7 });
    let written = harness.program.write_key(LOCK, &body).send().await;
    let id = written.write_id();
    let unreadable = json!({ "writeKeyResult": { &id: "SUCCESS" } });
    update(&harness, &json!({ "reported": unreadable }));
    let status = wait_for_anomalies(&harness, &id, &["UnreadableResult"]).await;
    assert_eq!(status["state"], "SENT");

    report(
        &harness,
        &id,
        &json!({ "status": "SUCCEEDED", "keyIndexNumber": 77 }),
    );
    let status = wait_for_anomalies(&harness, &id, &["UnreadableResult", "OtherSlot"]).await;
    let shown = |member: &str| status[member].clone();
    assert_eq!(shown("state"), "SUCCEEDED");
    assert_eq!(shown("keyIndexNumber"), 7);
    assert_eq!(shown("reportedKeyIndexNumber"), 77);

    report(
        &harness,
        &id,
        &json!({ "status": "FAILED", "reason": "NoSpace" }),
    );
    let all = ["UnreadableResult", "ContradictingResult", "OtherSlot"];
    let status = wait_for_anomalies(&harness, &id, &all).await;
    assert_eq!(status["state"], "SUCCEEDED", "the first answer stays");

    let log = log_with(&harness.program, &all).await;
    for anomaly in all {
        let series = format!(r#"keywright_report_anomalies_total{{anomaly="{anomaly}"}}"#);
        assert_eq!(metric(&harness, &series).await, 1.0, "{anomaly}");
        let line = log.lines().find(|line| line.contains(anomaly));
        let line = line.unwrap_or_else(|| panic!("{anomaly} in {log}"));
        assert!(
            line.contains("WARN") && line.contains(&format!("lock={LOCK}")),
            "{line}"
        );
    }
    let none = r#"keywright_report_anomalies_total{anomaly="MissingSlot"}"#;
    assert_eq!(metric(&harness, none).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_entry_is_counted_and_removed() {
    const UNKNOWN_WRITE: &str = "0000bad0-0000-4000-8000-000000000bad";
    let harness = start().await;
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 7 });
    assert_eq!(
        harness.program.write_key(LOCK, &body).send().await.status,
        200
    );
    let entry = json!({ "keyUuid": "x", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    update(
        &harness,
        &json!({ "desired": { "writeKey": { UNKNOWN_WRITE: entry } } }),
    );
    let series = r#"keywright_audit_findings_total{finding="UnknownEntry"}"#;
    eventually("the entry is found", || async {
        (metric(&harness, series).await >= 1.0).then_some(())
    })
    .await;
    let log = log_with(&harness.program, &[UNKNOWN_WRITE]).await;
    let line = log.lines().find(|line| line.contains(UNKNOWN_WRITE));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(&format!("lock={LOCK}")), "{line}");
    assert!(line.contains("repaired=true"), "{line}");
}
