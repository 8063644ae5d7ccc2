//! Behaviours of virtual locks and the resulting states of writes.

use serde_json::json;

use crate::harness::{Harness, LOCK, eventually, log_with};

#[tokio::test]
async fn a_write_to_an_offline_lock_is_confirmed_when_it_is_online() {
    let harness = Harness::new(&["--behaviour", "123:latency=0s,offline=4s"]);
    let id = harness.write("k", Some(2)).await.write_id();
    assert_eq!(harness.status(&id).await["state"], "SENT");
    harness.wait_for_state(&id, "SUCCEEDED").await;
    assert_eq!(harness.memory().keys.get(&2).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn each_failure_reason_is_reported() {
    let reasons = [
        "SlotOccupied",
        "DuplicateKey",
        "IndexOutOfRange",
        "NoSpace",
        "Unsupported",
        "DeviceBusy",
        "NoCardPresent",
        "CardRemoved",
        "CardIncompatible",
        "EncoderTimeout",
    ];
    for reason in reasons {
        let behaviour = format!("123:latency=0s,fail={reason}");
        let harness = Harness::new(&["--behaviour", &behaviour]);
        let id = harness.write("k", Some(2)).await.write_id();
        let status = harness.wait_for_state(&id, "FAILED").await;
        assert_eq!(status["reason"], reason);
        assert!(status["retry"].is_string());
        let store = harness.consistent_store().await;
        assert_eq!(
            store.event_names_after_creation(LOCK).await,
            ["KeyWriteRequested", "KeyWriteFailed"]
        );
    }
}

#[tokio::test]
async fn an_unknown_reason_is_a_device_error_with_a_code() {
    let harness = Harness::new(&["--behaviour", "123:latency=0s,fail=E42"]);
    let id = harness.write("k", Some(2)).await.write_id();
    let status = harness.wait_for_state(&id, "FAILED").await;
    assert_eq!(
        (&status["reason"], &status["code"]),
        (&json!("DeviceError"), &json!("E42"))
    );
}

#[tokio::test]
async fn a_key_index_beyond_the_locks_capacity_is_a_failure() {
    let harness = Harness::new(&["--behaviour", "123:latency=0s,capacity=3"]);
    let id = harness.write("k", Some(3)).await.write_id();
    assert_eq!(
        harness.wait_for_state(&id, "FAILED").await["reason"],
        "IndexOutOfRange"
    );
}

#[tokio::test]
async fn a_repeated_report_counts_once() {
    let harness = Harness::new(&["--behaviour", "123:latency=0s,twice"]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    // The lock sends both reports before the result of the next write.
    let next = harness.write("k", Some(3)).await.write_id();
    harness.wait_for_state(&next, "SUCCEEDED").await;
    let names = harness.store().await.event_names_after_creation(LOCK).await;
    assert_eq!(
        names.iter().filter(|n| **n == "KeyWriteConfirmed").count(),
        2,
        "{names:?}"
    );
}

#[tokio::test]
async fn a_lock_that_waits_for_a_card_reports_progress() {
    // The lock is offline until the write is committed, because progress before the commit is not recorded.
    let harness = Harness::new(&["--behaviour", "123:card=600ms,offline=4s"]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let steps = ["SENT", "IN_PROGRESS", "SUCCEEDED"];
    let log = log_with(&harness.program, &steps).await;
    let places = steps.map(|step| log.find(step));
    assert!(places.is_sorted(), "{places:?}: {log}");
    let store = harness.store().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_report_after_expiry_is_recorded_as_late() {
    // The lock must receive the write before it expires, also on a busy machine: it skips expired writes.
    let harness = Harness::new(&["--behaviour", "123:latency=10s", "--time-to-live", "4s"]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "EXPIRED").await;
    assert!(
        harness
            .store()
            .await
            .shadow(LOCK)
            .expect("a shadow")
            .entries
            .is_empty()
    );
    let status = harness.wait_for_state(&id, "SUCCEEDED").await;
    assert_eq!(status["late"], true);
    let names = harness.store().await.event_names_after_creation(LOCK).await;
    assert_eq!(
        names,
        ["KeyWriteRequested", "KeyWriteExpired", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_report_before_the_commit_commits_and_settles_the_write() {
    // The server cannot read the shadow, so only the lock's report proves that the update was applied. It ends the request long
    // before the deadline of the request and the end of the lease.
    let arguments = [
        "--faults",
        "put@1=drop-answer,read@2-=lose",
        "--shadow-call",
        "500ms",
    ];
    let harness = Harness::new(&arguments);
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["event"]["type"], "KeyWriteRequested");
    assert_eq!(
        harness.status(&answer.write_id()).await["state"],
        "SUCCEEDED"
    );
    let names = harness.store().await.event_names_after_creation(LOCK).await;
    assert_eq!(names, ["KeyWriteRequested", "KeyWriteConfirmed"]);
}

#[tokio::test]
async fn superseded_and_withdrawn_writes_never_reach_the_lock() {
    // Long enough for three requests on a busy machine.
    let harness = Harness::new(&["--behaviour", "123:latency=0s,offline=6s"]);
    let superseded = harness.write("superseded", Some(2)).await.write_id();
    let withdrawn = harness.write("withdrawn", Some(3)).await.write_id();
    let path = format!("/locks/{LOCK}/writes/{withdrawn}");
    let request = harness
        .program
        .request("DELETE", &path)
        .bearer(&harness.program.token);
    assert_eq!(request.send().await.status, 200);
    let newer = harness.write("newer", Some(2)).await.write_id();
    harness.wait_for_state(&newer, "SUCCEEDED").await;
    let memory = harness.memory();
    assert_eq!(
        memory.keys.into_iter().collect::<Vec<_>>(),
        [(2, "newer".to_owned())]
    );
    assert_eq!(harness.status(&superseded).await["state"], "SUPERSEDED");
    assert_eq!(harness.status(&withdrawn).await["state"], "WITHDRAWN");
}

#[tokio::test]
async fn a_settled_write_leaves_no_delta_and_its_result_is_cleared() {
    let harness = Harness::new(&["--clear-within", "1s"]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let store = harness.store().await;
    let name = keywright_shadow::ShadowName::Named("keys".into());
    let document = store
        .shadows
        .document("demo-lock-123", &name)
        .expect("a shadow");
    assert!(document.delta().is_empty(), "{document:?}");
    assert_eq!(store.shadow(LOCK).expect("a shadow").results.len(), 1);
    eventually("the result is cleared from the shadow", || async {
        let shadow = harness.store().await.shadow(LOCK).expect("a shadow");
        shadow.results.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_write_to_a_silent_lock_is_unconfirmed_and_then_expires() {
    let arguments = [
        "--behaviour",
        "123:latency=0s,silent",
        "--time-to-live",
        "2s",
        "--confirm-within",
        "1s",
    ];
    let harness = Harness::new(&arguments);
    let id = harness.write("k", Some(2)).await.write_id();
    eventually("the write is unconfirmed", || async {
        (harness.status(&id).await["unconfirmed"] == true).then_some(())
    })
    .await;
    harness.wait_for_state(&id, "EXPIRED").await;
    harness.store_when_idle().await;
}
