//! Requests that are sent again under their `Idempotency-Key`.

use keywright_tests::{Answer, Request};
use serde_json::json;

use crate::harness::{FAST, LOCK, World, eventually};

fn named(world: &World, name: &str, key: &str) -> Request {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
    let request = world.program.write_key(LOCK, &body);
    request.header("Idempotency-Key", name)
}

/// What a client goes by.
fn gist(answer: &Answer) -> (u16, String, Option<String>) {
    let location = answer.header("location").map(ToOwned::to_owned);
    (answer.status, answer.body.to_string(), location)
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let world = World::new(&[]);
    let first = named(&world, "\"one\"", "k").send().await;
    assert_eq!(first.status, 200, "{first:?}");
    world.until(&first.write_id(), "SUCCEEDED").await;
    let before = world.books().await.dump();
    for name in ["one", "\"one\"", "one"] {
        let again = named(&world, name, "k").send().await;
        assert_eq!(gist(&again), gist(&first));
    }
    assert_eq!(world.books().await.dump(), before);
    let second = named(&world, "two", "k").send().await;
    assert_ne!(
        gist(&second),
        gist(&first),
        "another name is another request"
    );
}

#[tokio::test]
async fn a_name_is_for_one_command_and_must_be_one() {
    let world = World::silent();
    named(&world, "one", "k").send().await;
    let other = named(&world, "one", "another").send().await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(other.body["reason"], "IdempotencyKeyReused");
    let long = "n".repeat(256);
    for name in ["", "\"\"", &long] {
        let refused = named(&world, name, "k").send().await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    let twice = named(&world, "a", "k").header("Idempotency-Key", "b");
    assert_eq!(twice.send().await.status, 400);
}

#[tokio::test]
async fn an_answer_without_an_event_is_kept() {
    let world = World::silent();
    let open = named(&world, "one", "k").send().await;
    let first = named(&world, "two", "k").send().await;
    assert_eq!((first.status, &first.body["event"]), (200, &json!(null)));
    assert_eq!(first.write_id(), open.write_id());
    let path = format!("/locks/{LOCK}/writes/{}", open.write_id());
    let delete = world.program.request("DELETE", &path);
    let withdrawn = delete.bearer(&world.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    assert_eq!(gist(&named(&world, "two", "k").send().await), gist(&first));
    assert_eq!(gist(&named(&world, "one", "k").send().await), gist(&open));
}

/// Faults are counted in one process, so this is not for replicas.
#[tokio::test]
async fn a_502_runs_again_and_a_504_becomes_its_final_answer() {
    let mut arguments = FAST.to_vec();
    // The first put makes the shadow's first entry; then one is refused, and of one the answers are lost.
    arguments.extend(["--virtual-locks", "off", "--faults"]);
    arguments.push("put@2=refuse,put@4=drop-answer,read@2-9=lose");
    let world = World::new(&arguments);
    assert_eq!(named(&world, "zero", "k0").send().await.status, 200);
    assert_eq!(named(&world, "one", "k1").send().await.status, 502);
    let written = named(&world, "one", "k1").send().await;
    assert_eq!(written.status, 200, "{written:?}");
    assert_eq!(
        gist(&named(&world, "one", "k1").send().await),
        gist(&written)
    );

    let unknown = named(&world, "two", "k2").send().await;
    assert_eq!(unknown.status, 504, "{unknown:?}");
    let again = named(&world, "two", "k2").send().await;
    assert_eq!(gist(&again), gist(&unknown));
    let decided = eventually("it is decided", || async {
        let answer = named(&world, "two", "k2").send().await;
        (answer.status != 504 && answer.status != 409).then_some(answer)
    })
    .await;
    assert_eq!(decided.status, 200, "{decided:?}");
    assert_eq!(decided.write_id(), unknown.write_id());
}

#[tokio::test]
async fn of_many_at_once_one_is_done() {
    let world = World::silent();
    let asking: Vec<_> = (0..16)
        .map(|_| tokio::spawn(named(&world, "one", "k").send()))
        .collect();
    let mut answers = Vec::new();
    for answer in asking {
        answers.push(answer.await.expect("an answer"));
    }
    let first = answers
        .iter()
        .find(|a| a.status == 200)
        .expect("one is done");
    for answer in &answers {
        match answer.status {
            200 => assert_eq!(gist(answer), gist(first)),
            409 => assert_eq!(answer.body["reason"], "StillRunning"),
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(world.books().await.names(LOCK).await, ["KeyWriteRequested"]);
}

#[tokio::test]
async fn what_is_kept_no_longer_is_deleted() {
    let mut arguments = FAST.to_vec();
    arguments.extend(["--keep-answers", "1s", "--keep-writes", "6s"]);
    arguments.extend(["--clear-within", "1s"]);
    let world = World::new(&arguments);
    let first = named(&world, "one", "k").send().await;
    let id = first.write_id();
    world.until(&id, "SUCCEEDED").await;
    let path = format!("/locks/{LOCK}/writes/{id}");
    eventually("the write is forgotten", || async {
        let answer = world.program.get(&path).send().await;
        (answer.status == 404).then_some(())
    })
    .await;
    let names = world.books().await.names(LOCK).await;
    assert_eq!(
        names,
        ["KeyWriteRequested", "KeyWriteConfirmed"],
        "events stay"
    );
    let second = named(&world, "one", "k").send().await;
    assert_ne!(gist(&second), gist(&first), "the name is new again");
}
