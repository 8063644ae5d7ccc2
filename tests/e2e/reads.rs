//! Routes beside WriteKey: details and events of a lock, status and withdrawal of a write, health checks.

use serde_json::{Value, json};

use crate::harness::{Harness, LOCK};
use keywright_tests::Answer;

async fn withdraw(harness: &Harness, id: &str) -> Answer {
    let path = format!("/locks/{LOCK}/writes/{id}");
    let request = harness
        .program
        .request("DELETE", &path)
        .bearer(&harness.program.token);
    request.send().await
}

#[tokio::test]
async fn details_show_the_current_state_of_the_lock() {
    let harness = Harness::new(&[]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let answer = harness.program.get("/locks/123/details").send().await;
    let timestamp = answer.body["timestamp"].clone();
    assert_eq!(
        answer.body,
        json!({
            "id": "123", "lockId": 123, "uuid": "00000000-0000-4000-8000-000000000123",
            "serialNumber": "DEMO-123", "keys": [{ "uuid": "k", "indexNumber": 2 }],
            "ownerId": "demo-user", "organizationId": "demo-org", "residents": [], "orgId": "demo-org",
            "version": 4, "timestamp": timestamp
        })
    );
}

#[tokio::test]
async fn a_confirmed_key_grants_no_access() {
    let harness = Harness::new(&[]);
    // The key has the name of a user, but does not belong to one.
    let id = harness.write("another-user", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let keys = harness.program.get("/locks/123/details").send().await.body["keys"].clone();
    assert_eq!(keys[0].get("userId"), None);
}

#[tokio::test]
async fn events_come_in_pages_of_ten() {
    let harness = Harness::silent();
    for n in 0..10 {
        assert_eq!(harness.write(&format!("k{n}"), Some(n)).await.status, 200);
    }
    let page = |query: &str| {
        let request = harness.program.get(&format!("/locks/123/events{query}"));
        async { request.send().await.body }
    };
    let first = page("?page=1").await;
    let head = |page: &Value| {
        [
            "aggregateId",
            "totalEvents",
            "page",
            "pageSize",
            "totalPages",
        ]
        .map(|m| page[m].clone())
    };
    assert_eq!(
        head(&first),
        [json!("123"), json!(12), json!(1), json!(10), json!(2)]
    );
    let versions = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().expect("events").iter();
        events
            .map(|e| e["version"].as_u64().expect("a version"))
            .collect()
    };
    assert_eq!(versions(&first), (1..=10).collect::<Vec<u64>>());
    let last = page("").await;
    assert_eq!(
        (head(&last)[2].clone(), versions(&last)),
        (json!(2), vec![11, 12])
    );
    assert!(versions(&page("?page=3").await).is_empty());
    assert!(versions(&page(&format!("?page={}", u64::MAX)).await).is_empty());
    let event = &last["events"][1];
    let timestamp = event["timestamp"].clone();
    assert_eq!(
        *event,
        json!({
            "aggregateType": "lock", "aggregateId": "123", "version": 12, "type": "KeyWriteRequested",
            "timestamp": timestamp, "orgId": "demo-org",
            "event": { "type": "KeyWriteRequested", "data": {
                "lockId": 123, "uuid": "00000000-0000-4000-8000-000000000123", "timestamp": timestamp,
                "keyUuid": "k9", "keyIndexNumber": 9
            } }
        })
    );
}

#[tokio::test]
async fn a_write_shows_its_state() {
    let harness = Harness::silent();
    let id = harness.write("k", Some(2)).await.write_id();
    let status = harness.status(&id).await;
    let (requested, expires) = (status["requestedAt"].clone(), status["expiresAt"].clone());
    assert_eq!(
        status,
        json!({
            "id": id, "lockId": 123, "keyUuid": "k", "keyIndexNumber": 2, "state": "SENT",
            "unconfirmed": false, "late": false, "requestedBy": "user:demo-user",
            "requestedAt": requested, "expiresAt": expires, "version": 3,
            "canReachLock": "until", "canReachLockUntil": expires,
            "because": "The write is on the shadow of the lock. The lock reads it when it is connected, until the write expires.",
            "steps": [
                { "state": "PREPARED", "at": requested },
                { "state": "SENT", "at": status["steps"][1]["at"] },
            ]
        })
    );
}

#[tokio::test]
async fn a_failed_write_shows_its_reason_and_advice_on_retries() {
    let harness = Harness::new(&["--behaviour", "123:fail=DeviceBusy"]);
    let id = harness.write("k", None).await.write_id();
    let status = harness.wait_for_state(&id, "FAILED").await;
    assert_eq!(
        (&status["reason"], &status["retry"]),
        (&json!("DeviceBusy"), &json!("retry-after"))
    );
    assert!(status["settledAt"].is_string());
}

#[tokio::test]
async fn an_open_write_can_be_withdrawn() {
    let harness = Harness::silent();
    let id = harness.write("k", Some(2)).await.write_id();
    let answer = withdraw(&harness, &id).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &json!("WITHDRAWN"))
    );
    let store = harness.consistent_store().await;
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteWithdrawn"]
    );
    assert!(store.shadow(LOCK).expect("a shadow").entries.is_empty());
    let again = withdraw(&harness, &id).await;
    assert_eq!(
        (again.status, &again.body),
        (200, &answer.body),
        "a repeated withdrawal gets the same answer"
    );
    assert_eq!(
        harness
            .store()
            .await
            .event_names_after_creation(LOCK)
            .await
            .len(),
        2,
        "the withdrawal is recorded once"
    );
}

#[tokio::test]
async fn a_settled_write_cannot_be_withdrawn() {
    let harness = Harness::new(&[]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let before = harness.store().await.dump();
    let refused = withdraw(&harness, &id).await;
    assert_eq!(refused.status, 409);
    let message = refused.body["message"].as_str().expect("a message");
    assert!(message.contains("SUCCEEDED"), "{message}");
    assert_eq!(harness.store().await.dump(), before);
    let unknown = withdraw(&harness, "01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_withdrawal_that_the_shadow_refuses_is_a_502_and_changes_nothing() {
    // The first update creates the shadow, the second puts the entry.
    let harness = Harness::new(&["--virtual-locks", "off", "--faults", "update@3=refuse"]);
    let id = harness.write("k", Some(2)).await.write_id();
    let answer = withdraw(&harness, &id).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(harness.status(&id).await["state"], "SENT");
    harness.consistent_store().await;
}

#[tokio::test]
async fn health_checks_answer_get_and_head() {
    let harness = Harness::silent();
    for path in ["/healthz", "/readyz"] {
        for method in ["GET", "HEAD"] {
            let answer = harness.program.request(method, path).send().await;
            assert_eq!(answer.status, 200, "{method} {path}");
        }
    }
}
