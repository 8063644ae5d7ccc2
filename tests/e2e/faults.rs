//! Writes over faulty shadows and stores (`--faults`).

use std::time::Duration;

use serde_json::json;

use crate::harness::{Harness, LOCK, VERY_SHORT_TIMEOUTS, eventually, log_with};

fn arguments<'a>(faults: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--faults", faults];
    all.extend(VERY_SHORT_TIMEOUTS);
    all.extend(more);
    all
}

#[tokio::test]
async fn a_refused_update_is_a_502_without_any_effect() {
    for fault in ["refuse", "not-sent"] {
        let plan = format!("put@1={fault}");
        let harness = Harness::new(&arguments(&plan, &[]));
        let answer = harness.write("k", Some(2)).await;
        assert_eq!(answer.status, 502, "{fault}: {answer:?}");
        let store = harness.store_when_idle().await;
        assert_eq!(store.event_names_after_creation(LOCK).await, [""; 0]);
        assert!(store.shadow(LOCK).expect("a shadow").entries.is_empty());
        assert!(harness.memory().keys.is_empty());
        assert_eq!(
            harness.write("k", Some(2)).await.status,
            200,
            "the lock's queue is free"
        );
    }
}

#[tokio::test]
async fn an_applied_update_with_a_lost_answer_is_a_200() {
    let harness = Harness::new(&arguments("put@1=drop-answer", &[]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    harness
        .wait_for_state(&answer.write_id(), "SUCCEEDED")
        .await;
    let store = harness.store_when_idle().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn an_applied_update_without_reads_is_a_504_that_resolves_by_itself() {
    // The first read finds no shadow; all later reads of the request fail.
    let plan = "put@1=drop-answer,read@2-30=lose";
    let harness = Harness::new(&arguments(plan, &["--virtual-locks", "off"]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(
        answer.body["message"],
        "The device shadow did not answer in time; the outcome is not known yet"
    );
    assert_eq!(answer.body["error"], "Gateway Timeout");
    assert_eq!(answer.header("retry-after"), Some("4"), "the lease");
    let id = answer.write_id();
    let blocked = harness.write("another", Some(3)).await;
    assert_eq!(blocked.status, 503, "{blocked:?}");
    assert_eq!(
        blocked.write_id(),
        id,
        "the answer names the blocking write"
    );
    assert_eq!(harness.status(&id).await["state"], "PREPARED");
    harness.wait_for_state(&id, "SENT").await;
    let store = harness.store_when_idle().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested"]
    );
    log_with(&harness.program, &["taken over"]).await;
}

#[tokio::test]
async fn a_call_that_times_out_is_logged() {
    let harness = Harness::new(&arguments("put@1-=delay:60s", &["--virtual-locks", "off"]));
    let answer = harness.write("k", Some(2)).await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    log_with(&harness.program, &["the shadow did not answer in time"]).await;
}

#[tokio::test]
async fn a_failing_store_is_a_503_without_any_effect() {
    let harness = Harness::new(&arguments("save@1=refuse", &["--virtual-locks", "off"]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.body["error"], "Service Unavailable");
    assert!(answer.header("retry-after").is_some());
    let store = harness.store_when_idle().await;
    assert_eq!(
        (
            store.event_names_after_creation(LOCK).await,
            store.write_ids()
        ),
        (vec![], vec![])
    );
    assert!(
        store
            .shadow(LOCK)
            .is_none_or(|shadow| shadow.entries.is_empty())
    );
    assert_eq!(harness.write("k", Some(2)).await.status, 200);
}

#[tokio::test]
async fn a_save_with_a_lost_answer_is_looked_up_and_made_once() {
    // The save of the intent is lost and repeated; then the commit is saved and its answer is lost.
    let plan = "save@1=lose,save@3=drop-answer";
    let harness = Harness::new(&arguments(plan, &["--virtual-locks", "off"]));
    assert_eq!(harness.write("k", Some(2)).await.status, 200);
    let store = harness.store_when_idle().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested"]
    );
}

#[tokio::test]
async fn a_recorded_200_stays_a_200_when_the_store_fails_afterwards() {
    // The write itself needs the first two loads.
    let harness = Harness::new(&["--virtual-locks", "off", "--faults", "load@3-=lose"]);
    let request = harness.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
    let answer = request.header("Prefer", "wait=2").send().await;
    assert_eq!(
        (answer.status, answer.body.get("write")),
        (200, None),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_result_of_the_lock_commits_and_settles_a_504() {
    let plan = "put@1=drop-answer,read@2-30=lose";
    let harness = Harness::new(&arguments(plan, &["--behaviour", "123:latency=2s"]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    harness
        .wait_for_state(&answer.write_id(), "SUCCEEDED")
        .await;
    let store = harness.store_when_idle().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
    assert_eq!(harness.memory().keys.get(&2).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn a_late_update_conflicts_after_the_fence_of_a_502() {
    let harness = Harness::new(&arguments("put@1-3=late:1500ms", &[]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let fenced = harness
        .store_when_idle()
        .await
        .shadow(LOCK)
        .expect("a shadow")
        .version;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let store = harness.store_when_idle().await;
    assert_eq!(store.event_names_after_creation(LOCK).await, [""; 0]);
    let shadow = store.shadow(LOCK).expect("a shadow");
    assert_eq!(
        (shadow.version, shadow.entries.len()),
        (fenced, 0),
        "each late copy conflicts"
    );
    assert!(harness.memory().keys.is_empty());
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    // The first copy is under way when the second is refused, so that only the fence makes a 502 correct.
    let harness = Harness::new(&arguments("put@1=late:1s,put@2=refuse", &[]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let store = harness.store_when_idle().await;
    assert_eq!(store.event_names_after_creation(LOCK).await, [""; 0]);
    assert!(harness.memory().keys.is_empty());
}

#[tokio::test]
async fn an_update_that_arrives_before_the_fence_is_committed() {
    // The fence then conflicts, and the next read finds the entry. Tests of the domain cover client tokens.
    let plan = "put@1=late:300ms,put@2-3=lose,update@5=delay:450ms";
    let harness = Harness::new(&arguments(plan, &[]));
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    harness
        .wait_for_state(&answer.write_id(), "SUCCEEDED")
        .await;
    let store = harness.store_when_idle().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_slow_shadow_is_a_200_before_the_deadline() {
    let harness = Harness::new(&arguments("put@1=delay:300ms", &[]));
    assert_eq!(harness.write("k", Some(2)).await.status, 200);
    harness.store_when_idle().await;
}

#[tokio::test]
async fn other_locks_do_not_wait_for_a_slow_one() {
    let mut arguments = vec!["--faults", "put@1=delay:4s", "--locks", "1"];
    arguments.extend(["--request", "20s", "--shadow-call", "10s", "--lease", "40s"]);
    let harness = Harness::new(&arguments);
    let slow = tokio::spawn(
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("the slow write is in progress", || async {
        harness.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let other = harness
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(other.status, 200);
    assert!(
        !slow.is_finished(),
        "the slow write still waits for its shadow"
    );
    assert_eq!(slow.await.expect("answered").status, 200);
}

#[tokio::test]
async fn writes_of_one_lock_queue_and_get_503_after_the_timeout() {
    let harness = Harness::new(&[
        "--faults",
        "put@1-=delay:1500ms",
        "--turn",
        "4s",
        "--virtual-locks",
        "off",
    ]);
    let writes: Vec<_> = (0..6)
        .map(|n| {
            tokio::spawn(
                harness
                    .program
                    .write_key(LOCK, &json!({ "keyUuid": format!("k{n}") }))
                    .send(),
            )
        })
        .collect();
    let mut statuses = Vec::new();
    for write in writes {
        let answer = write.await.expect("answered");
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some());
            assert_eq!(answer.body["error"], "Service Unavailable");
            assert_eq!(
                (&answer.body["success"], &answer.body["code"]),
                (&json!(false), &json!(503))
            );
        }
        statuses.push(answer.status);
    }
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!(count(200) + count(503), 6, "{statuses:?}");
    assert!(count(200) >= 2 && count(503) >= 1, "{statuses:?}");
    harness.store_when_idle().await;
}
