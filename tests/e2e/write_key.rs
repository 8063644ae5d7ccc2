//! The 200 of a write, and what waits behind it.

use serde_json::{Value, json};

use crate::harness::{LOCK, World, eventually};

#[tokio::test]
async fn a_key_reaches_its_lock() {
    let world = World::new(&[]);
    let answer = world.write("9b2e8f4a", Some(2)).await;
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
    let status = world.until(&id, "SUCCEEDED").await;
    assert_eq!(status["version"], 3);
    assert_eq!(
        world.memory().keys.get(&2).map(String::as_str),
        Some("9b2e8f4a")
    );
    let events = world.program.get("/locks/123/events").send().await.body;
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
    let log = world.program.log();
    for step in ["PREPARED", "SENT", "SUCCEEDED", "virtual lock has the key"] {
        assert!(log.contains(step), "{step} is shown: {log}");
    }
    world.balanced().await;
}

#[tokio::test]
async fn without_an_index_the_lock_chooses_and_the_event_has_none() {
    let world = World::new(&[]);
    let answer = world.write("k", None).await;
    assert_eq!(answer.body["event"]["data"].get("keyIndexNumber"), None);
    let status = world.until(&answer.write_id(), "SUCCEEDED").await;
    assert_eq!(status.get("keyIndexNumber"), None);
    assert_eq!(world.memory().keys.get(&0).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn without_virtual_locks_a_write_stays_sent() {
    let world = World::new(&["--virtual-locks", "off", "--confirm-within", "5s"]);
    let id = world.write("k", Some(2)).await.write_id();
    assert_eq!(world.status(&id).await["unconfirmed"], false);
    let status = eventually("it is unconfirmed", || async {
        let status = world.status(&id).await;
        (status["unconfirmed"] == true).then_some(status)
    })
    .await;
    assert_eq!(status["state"], "SENT");
    let open = world
        .program
        .get("/locks/123/writes?state=open")
        .send()
        .await
        .body;
    assert_eq!(open["writes"].as_array().map(Vec::len), Some(1));
    assert_eq!(open["writes"][0]["id"], id.as_str());
}

#[tokio::test]
async fn the_same_open_write_is_answered_without_an_event() {
    let world = World::silent();
    let first = world.write("k", Some(2)).await;
    let before = world.books().await.dump();
    let again = world.write("k", Some(2)).await;
    assert_eq!(again.status, 200);
    assert_eq!(
        again.body,
        json!({ "success": true, "aggregateId": "123", "version": 3, "event": null })
    );
    assert_eq!(again.write_id(), first.write_id());
    assert_eq!(
        world.books().await.dump(),
        before,
        "nothing was recorded or sent"
    );
}

#[tokio::test]
async fn once_settled_the_same_request_is_a_new_write() {
    let world = World::new(&[]);
    let first = world.write("k", Some(2)).await.write_id();
    world.until(&first, "SUCCEEDED").await;
    let second = world.write("k", Some(2)).await;
    assert_ne!(second.write_id(), first);
    assert_eq!(second.body["version"], 5);
}

#[tokio::test]
async fn a_newer_write_supersedes_the_open_one_of_its_index() {
    let world = World::silent();
    let older = world.write("k1", Some(2)).await.write_id();
    let beside = world.write("k2", None).await.write_id();
    let newer = world.write("k3", Some(2)).await;
    assert_eq!(newer.status, 200);
    assert_eq!(world.status(&older).await["state"], "SUPERSEDED");
    assert_eq!(world.status(&beside).await["state"], "SENT");
    let books = world.balanced().await;
    let expected = [
        "KeyWriteRequested",
        "KeyWriteRequested",
        "KeyWriteSuperseded",
        "KeyWriteRequested",
    ];
    assert_eq!(books.names(LOCK).await, expected);
}

#[tokio::test]
async fn a_client_may_wait_for_the_lock() {
    let world = World::new(&["--behaviour", "123:latency=200ms"]);
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let answer = world
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
    let world = World::new(&["--behaviour", "123:fail=NoSpace"]);
    let request = world.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
    let answer = request.header("Prefer", "wait=10").send().await;
    let expected = json!({ "id": answer.write_id(), "state": "FAILED", "reason": "NoSpace" });
    assert_eq!((answer.status, &answer.body["write"]), (200, &expected));
}

#[tokio::test]
async fn who_has_waited_long_enough_is_answered_as_it_stands() {
    let world = World::silent();
    let body = json!({ "keyUuid": "k" });
    for _ in 0..2 {
        // The second is the same open write: there, too, the client may wait.
        let answer = world
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
async fn the_turn_is_free_while_a_client_waits() {
    let world = World::silent();
    let waiting = world.program.write_key(LOCK, &json!({ "keyUuid": "k1" }));
    let waiting = tokio::spawn(waiting.header("Prefer", "wait=30").send());
    let id = eventually("the first is sent", || async {
        let open = world
            .program
            .get("/locks/123/writes?state=open")
            .send()
            .await;
        let first = &open.body["writes"][0];
        let id = first["id"].as_str().map(str::to_owned);
        id.filter(|_| first["state"] == "SENT")
    })
    .await;
    assert_eq!(world.write("k2", None).await.status, 200);
    assert!(!waiting.is_finished(), "the first still waits");
    let path = format!("/locks/{LOCK}/writes/{id}");
    let withdrawal = world.program.request("DELETE", &path);
    let withdrawn = withdrawal.bearer(&world.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let answer = waiting.await.expect("answered");
    assert_eq!(answer.body["write"]["state"], "WITHDRAWN", "{answer:?}");
}

#[tokio::test]
async fn fields_that_are_not_known_are_ignored() {
    let world = World::silent();
    let body = json!({ "keyUuid": "example_string", "name": "x", "nested": { "a": [1] } });
    let answer = world.program.write_key(LOCK, &body).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn each_answer_has_the_id_that_the_log_has() {
    let world = World::silent();
    let answer = world.write("k", None).await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let named = world
        .program
        .get("/locks/123/details")
        .header("X-Request-Id", "my-own.id_1");
    assert_eq!(
        named.send().await.header("x-request-id"),
        Some("my-own.id_1")
    );
    let bad = world
        .program
        .get("/locks/123/details")
        .header("X-Request-Id", "a b\"c");
    assert_ne!(bad.send().await.header("x-request-id"), Some("a b\"c"));
    let log = world.program.log();
    let lines = log.lines().filter(|l| l.contains(&id)).count();
    assert_eq!(lines, 3, "prepared, sent, answered: {log}");
}

#[tokio::test]
async fn neither_keys_nor_credentials_are_logged() {
    let world = World::new(&["--log-level", "trace"]);
    let body = json!({ "keyUuid": "a-very-secret-key", "keyIndexNumber": 2 });
    let request = world.program.write_key(LOCK, &body);
    let api_key = &world.program.api_key;
    let answer = request
        .header("X-API-Key", api_key)
        .header("Prefer", "wait=5")
        .send()
        .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED");
    let wrong = world
        .program
        .request("GET", "/locks/123/details")
        .bearer("a-wrong-token");
    assert_eq!(wrong.send().await.status, 401);
    let log = world.program.log();
    let token = world.program.token.rsplit('.').next().expect("a signature");
    for secret in ["a-very-secret-key", "a-wrong-token", token, &api_key[8..40]] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
