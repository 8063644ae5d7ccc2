//! Accepted writes: answers, states, superseding, waiting, and logs.

use serde_json::{Value, json};

use crate::harness::{Harness, LOCK, eventually, log_with};

#[tokio::test]
async fn a_key_is_written_and_confirmed() {
    let harness = Harness::new(&[]);
    let answer = harness.write("9b2e8f4a", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let id = answer.write_id();
    assert_eq!(
        answer.header("location"),
        Some(format!("/locks/{LOCK}/writes/{id}").as_str())
    );
    let timestamp = answer.body["event"]["data"]["timestamp"].clone();
    assert_eq!(
        answer.body,
        json!({
            "success": true, "aggregateId": "123", "version": 3,
            "event": { "type": "KeyWriteRequested", "data": {
                "lockId": 123, "uuid": "00000000-0000-4000-8000-000000000123",
                "timestamp": timestamp, "keyUuid": "9b2e8f4a", "keyIndexNumber": 2
            } }
        })
    );
    let status = harness.wait_for_state(&id, "SUCCEEDED").await;
    assert_eq!(status["version"], 3);
    assert_eq!(
        harness.memory().keys.get(&2).map(String::as_str),
        Some("9b2e8f4a")
    );
    let events = harness.program.get("/locks/123/events").send().await.body;
    let types: Vec<&Value> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|e| &e["type"])
        .collect();
    assert_eq!(
        types,
        [
            "LockCreated",
            "OrganizationSet",
            "KeyWriteRequested",
            "KeyWriteConfirmed"
        ]
    );
    let steps = ["PREPARED", "SENT", "SUCCEEDED", "virtual lock has the key"];
    log_with(&harness.program, &steps).await;
    harness.consistent_store().await;
}

#[tokio::test]
async fn without_a_key_index_the_lock_chooses_one() {
    let harness = Harness::new(&[]);
    let answer = harness.write("k", None).await;
    assert_eq!(answer.body["event"]["data"].get("keyIndexNumber"), None);
    let status = harness
        .wait_for_state(&answer.write_id(), "SUCCEEDED")
        .await;
    assert_eq!(status.get("keyIndexNumber"), None);
    assert_eq!(harness.memory().keys.get(&0).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn without_virtual_locks_a_write_stays_sent() {
    let harness = Harness::new(&["--virtual-locks", "off", "--confirm-within", "5s"]);
    let id = harness.write("k", Some(2)).await.write_id();
    assert_eq!(harness.status(&id).await["unconfirmed"], false);
    let status = eventually("the write is unconfirmed", || async {
        let status = harness.status(&id).await;
        (status["unconfirmed"] == true).then_some(status)
    })
    .await;
    assert_eq!(status["state"], "SENT");
    let open = harness
        .program
        .get("/locks/123/writes?state=open")
        .send()
        .await
        .body;
    assert_eq!(open["writes"].as_array().map(Vec::len), Some(1));
    assert_eq!(open["writes"][0]["id"], id.as_str());
}

#[tokio::test]
async fn a_repeated_open_write_is_answered_without_an_event() {
    let harness = Harness::silent();
    let first = harness.write("k", Some(2)).await;
    let before = harness.store().await.dump();
    let again = harness.write("k", Some(2)).await;
    assert_eq!(again.status, 200);
    assert_eq!(
        again.body,
        json!({ "success": true, "aggregateId": "123", "version": 3, "event": null })
    );
    assert_eq!(again.write_id(), first.write_id());
    assert_eq!(
        harness.store().await.dump(),
        before,
        "the repetition has no effect"
    );
}

#[tokio::test]
async fn a_repeated_settled_write_is_a_new_write() {
    let harness = Harness::new(&[]);
    let first = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&first, "SUCCEEDED").await;
    let second = harness.write("k", Some(2)).await;
    assert_ne!(second.write_id(), first);
    assert_eq!(second.body["version"], 5);
}

#[tokio::test]
async fn a_newer_write_supersedes_the_open_one_of_its_index() {
    let harness = Harness::silent();
    let older = harness.write("k1", Some(2)).await.write_id();
    let beside = harness.write("k2", None).await.write_id();
    let newer = harness.write("k3", Some(2)).await;
    assert_eq!(newer.status, 200);
    assert_eq!(harness.status(&older).await["state"], "SUPERSEDED");
    assert_eq!(harness.status(&beside).await["state"], "SENT");
    let store = harness.consistent_store().await;
    let expected = [
        "KeyWriteRequested",
        "KeyWriteRequested",
        "KeyWriteSuperseded",
        "KeyWriteRequested",
    ];
    assert_eq!(store.event_names_after_creation(LOCK).await, expected);
}

#[tokio::test]
async fn a_client_may_wait_for_the_lock() {
    let harness = Harness::new(&["--behaviour", "123:latency=200ms"]);
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let answer = harness
        .program
        .write_key(LOCK, &body)
        .header("Prefer", "wait=10")
        .send()
        .await;
    assert_eq!(answer.header("preference-applied"), Some("wait=10"));
    assert_eq!(answer.body["event"]["type"], "KeyWriteRequested");
    assert_eq!(
        answer.body["write"],
        json!({ "id": answer.write_id(), "state": "SUCCEEDED" })
    );
}

#[tokio::test]
async fn a_lock_that_fails_while_the_client_waits_is_a_200_with_the_reason() {
    let harness = Harness::new(&["--behaviour", "123:fail=NoSpace"]);
    let request = harness.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
    let answer = request.header("Prefer", "wait=10").send().await;
    let expected = json!({ "id": answer.write_id(), "state": "FAILED", "reason": "NoSpace" });
    assert_eq!((answer.status, &answer.body["write"]), (200, &expected));
}

#[tokio::test]
async fn a_wait_ends_with_the_current_state() {
    let harness = Harness::silent();
    let body = json!({ "keyUuid": "k" });
    for _ in 0..2 {
        // The second request repeats the open write; it can wait, too.
        let answer = harness
            .program
            .write_key(LOCK, &body)
            .header("Prefer", "wait=1")
            .send()
            .await;
        assert_eq!(
            answer.body["write"],
            json!({ "id": answer.write_id(), "state": "SENT" })
        );
    }
}

#[tokio::test]
async fn the_locks_queue_is_free_while_a_client_waits() {
    let harness = Harness::silent();
    let waiting = harness.program.write_key(LOCK, &json!({ "keyUuid": "k1" }));
    let waiting = tokio::spawn(waiting.header("Prefer", "wait=30").send());
    let id = eventually("the first is sent", || async {
        let open = harness
            .program
            .get("/locks/123/writes?state=open")
            .send()
            .await;
        let first = &open.body["writes"][0];
        let id = first["id"].as_str().map(str::to_owned);
        id.filter(|_| first["state"] == "SENT")
    })
    .await;
    assert_eq!(harness.write("k2", None).await.status, 200);
    assert!(!waiting.is_finished(), "the first still waits");
    let path = format!("/locks/{LOCK}/writes/{id}");
    let withdrawal = harness.program.request("DELETE", &path);
    let withdrawn = withdrawal.bearer(&harness.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let answer = waiting.await.expect("answered");
    assert_eq!(answer.body["write"]["state"], "WITHDRAWN", "{answer:?}");
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let harness = Harness::silent();
    let body = json!({ "keyUuid": "example_string", "name": "x", "nested": { "a": [1] } });
    let answer = harness.program.write_key(LOCK, &body).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn each_answer_has_the_request_id_of_the_log() {
    let harness = Harness::silent();
    let answer = harness.write("k", None).await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let named = harness
        .program
        .get("/locks/123/details")
        .header("X-Request-Id", "my-own.id_1");
    assert_eq!(
        named.send().await.header("x-request-id"),
        Some("my-own.id_1")
    );
    let bad = harness
        .program
        .get("/locks/123/details")
        .header("X-Request-Id", "a b\"c");
    assert_ne!(bad.send().await.header("x-request-id"), Some("a b\"c"));
    let answered = r#"route="/locks/{id}/WriteKey" status=200"#;
    let log = log_with(&harness.program, &[answered]).await;
    let lines = log.lines().filter(|l| l.contains(&id)).count();
    assert_eq!(lines, 3, "prepared, sent, answered: {log}");
}

#[tokio::test]
async fn neither_keys_nor_credentials_are_logged() {
    let harness = Harness::new(&["--log-level", "trace"]);
    let body = json!({ "keyUuid": "a-very-secret-key", "keyIndexNumber": 2 });
    let request = harness.program.write_key(LOCK, &body);
    let api_key = &harness.program.api_key;
    let answer = request
        .header("X-API-Key", api_key)
        .header("Prefer", "wait=5")
        .send()
        .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED");
    let wrong = harness
        .program
        .request("GET", "/locks/123/details")
        .bearer("a-wrong-token");
    assert_eq!(wrong.send().await.status, 401);
    let log = harness.program.log();
    let token = harness
        .program
        .token
        .rsplit('.')
        .next()
        .expect("a signature");
    for secret in ["a-very-secret-key", "a-wrong-token", token, &api_key[8..40]] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
