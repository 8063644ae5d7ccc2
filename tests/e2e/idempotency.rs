//! Repeated requests with an `Idempotency-Key`.

use keywright_tests::{Answer, Request};
use serde_json::json;

use crate::harness::{Harness, LOCK, VERY_SHORT_TIMEOUTS, eventually};

fn write_with_key(harness: &Harness, idempotency_key: &str, key: &str) -> Request {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
    let request = harness.program.write_key(LOCK, &body);
    request.header("Idempotency-Key", idempotency_key)
}

/// The parts of an answer that a repeated request must get again: status, body, and Location.
fn essentials(answer: &Answer) -> (u16, String, Option<String>) {
    let location = answer.header("location").map(ToOwned::to_owned);
    (answer.status, answer.body.to_string(), location)
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let harness = Harness::new(&[]);
    let first = write_with_key(&harness, "\"one\"", "k").send().await;
    assert_eq!(first.status, 200, "{first:?}");
    harness.wait_for_state(&first.write_id(), "SUCCEEDED").await;
    let before = harness.store().await.dump();
    for name in ["one", "\"one\"", "one"] {
        let again = write_with_key(&harness, name, "k").send().await;
        assert_eq!(essentials(&again), essentials(&first));
    }
    assert_eq!(harness.store().await.dump(), before);
    let second = write_with_key(&harness, "two", "k").send().await;
    assert_ne!(
        essentials(&second),
        essentials(&first),
        "another Idempotency-Key is another request"
    );
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_command_and_has_a_valid_form() {
    let harness = Harness::silent();
    write_with_key(&harness, "one", "k").send().await;
    let other = write_with_key(&harness, "one", "another").send().await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(other.body["reason"], "IdempotencyKeyReused");
    let long = "n".repeat(256);
    for name in ["", "\"\"", &long] {
        let refused = write_with_key(&harness, name, "k").send().await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    let twice = write_with_key(&harness, "a", "k").header("Idempotency-Key", "b");
    assert_eq!(twice.send().await.status, 400);
}

#[tokio::test]
async fn an_answer_without_an_event_is_repeated() {
    let harness = Harness::silent();
    let open = write_with_key(&harness, "one", "k").send().await;
    let first = write_with_key(&harness, "two", "k").send().await;
    assert_eq!((first.status, &first.body["event"]), (200, &json!(null)));
    assert_eq!(first.write_id(), open.write_id());
    let path = format!("/locks/{LOCK}/writes/{}", open.write_id());
    let delete = harness.program.request("DELETE", &path);
    let withdrawn = delete.bearer(&harness.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    assert_eq!(
        essentials(&write_with_key(&harness, "two", "k").send().await),
        essentials(&first)
    );
    assert_eq!(
        essentials(&write_with_key(&harness, "one", "k").send().await),
        essentials(&open)
    );
}

/// Not for several replicas, because each counts its faults by itself.
#[tokio::test]
async fn a_502_runs_again_and_a_504_is_replaced_by_its_outcome() {
    let mut arguments = VERY_SHORT_TIMEOUTS.to_vec();
    // The first put adds the shadow's first entry; the second is refused; the answer to the fourth is lost. Then four reads time out,
    // which takes longer than a request.
    arguments.extend(["--virtual-locks", "off", "--faults"]);
    arguments.push("put@2=refuse,put@4=drop-answer,read@2-5=delay:1m");
    let harness = Harness::new(&arguments);
    assert_eq!(
        write_with_key(&harness, "zero", "k0").send().await.status,
        200
    );
    assert_eq!(
        write_with_key(&harness, "one", "k1").send().await.status,
        502
    );
    let written = write_with_key(&harness, "one", "k1").send().await;
    assert_eq!(written.status, 200, "{written:?}");
    assert_eq!(
        essentials(&write_with_key(&harness, "one", "k1").send().await),
        essentials(&written)
    );

    let unknown = write_with_key(&harness, "two", "k2").send().await;
    assert_eq!(unknown.status, 504, "{unknown:?}");
    let again = write_with_key(&harness, "two", "k2").send().await;
    assert_eq!(essentials(&again), essentials(&unknown));
    let decided = eventually("the 504 is decided", || async {
        let answer = write_with_key(&harness, "two", "k2").send().await;
        (answer.status != 504 && answer.status != 409).then_some(answer)
    })
    .await;
    assert_eq!(decided.status, 200, "{decided:?}");
    assert_eq!(decided.write_id(), unknown.write_id());
}

#[tokio::test]
async fn one_of_many_concurrent_repeats_is_executed() {
    let harness = Harness::silent();
    let requests: Vec<_> = (0..16)
        .map(|_| tokio::spawn(write_with_key(&harness, "one", "k").send()))
        .collect();
    let mut answers = Vec::new();
    for answer in requests {
        answers.push(answer.await.expect("an answer"));
    }
    let first = answers
        .iter()
        .find(|a| a.status == 200)
        .expect("one is executed");
    for answer in &answers {
        match answer.status {
            200 => assert_eq!(essentials(answer), essentials(first)),
            409 => assert_eq!(answer.body["reason"], "StillRunning"),
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(
        harness.store().await.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested"]
    );
}

#[tokio::test]
async fn expired_idempotency_records_and_writes_are_purged() {
    let mut arguments = VERY_SHORT_TIMEOUTS.to_vec();
    arguments.extend(["--keep-answers", "1s", "--keep-writes", "6s"]);
    arguments.extend(["--clear-within", "1s"]);
    let harness = Harness::new(&arguments);
    let first = write_with_key(&harness, "one", "k").send().await;
    let id = first.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let path = format!("/locks/{LOCK}/writes/{id}");
    eventually("the write is purged", || async {
        let answer = harness.program.get(&path).send().await;
        (answer.status == 404).then_some(())
    })
    .await;
    let names = harness.store().await.event_names_after_creation(LOCK).await;
    assert_eq!(
        names,
        ["KeyWriteRequested", "KeyWriteConfirmed"],
        "events are never purged"
    );
    let second = write_with_key(&harness, "one", "k").send().await;
    assert_ne!(
        essentials(&second),
        essentials(&first),
        "the Idempotency-Key can be used again"
    );
}
