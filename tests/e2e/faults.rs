//! A write over a shadow that fails, by name.

use std::time::Duration;

use serde_json::json;

use crate::harness::{FAST, LOCK, World, eventually};

fn arguments<'a>(faults: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--faults", faults];
    all.extend(FAST);
    all.extend(more);
    all
}

#[tokio::test]
async fn refused_is_a_502_and_nothing_is_anywhere() {
    for fault in ["refuse", "not-sent"] {
        let plan = format!("put@1={fault}");
        let world = World::new(&arguments(&plan, &[]));
        let answer = world.write("k", Some(2)).await;
        assert_eq!(answer.status, 502, "{fault}: {answer:?}");
        let books = world.at_rest().await;
        assert_eq!(books.names(LOCK).await, [""; 0]);
        assert!(books.shadow(LOCK).expect("a shadow").entries.is_empty());
        assert!(world.memory().keys.is_empty());
        assert_eq!(
            world.write("k", Some(2)).await.status,
            200,
            "the turn is free"
        );
    }
}

#[tokio::test]
async fn applied_and_the_answer_dropped_is_a_200() {
    let world = World::new(&arguments("put@1=drop-answer", &[]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.until(&answer.write_id(), "SUCCEEDED").await;
    let books = world.at_rest().await;
    assert_eq!(
        books.names(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn applied_with_reads_down_is_a_504_that_resolves_by_itself() {
    // The first reading finds out that there is no shadow; then none works for the rest of the request.
    let plan = "put@1=drop-answer,read@2-30=lose";
    let world = World::new(&arguments(plan, &["--virtual-locks", "off"]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(
        answer.body["message"],
        "The device shadow did not answer in time; the outcome is not known yet"
    );
    assert_eq!(answer.body["error"], "Gateway Timeout");
    assert_eq!(answer.header("retry-after"), Some("4"), "the lease");
    let id = answer.write_id();
    let blocked = world.write("another", Some(3)).await;
    assert_eq!(blocked.status, 503, "{blocked:?}");
    assert_eq!(blocked.write_id(), id, "it says which write is waited for");
    assert_eq!(world.status(&id).await["state"], "PREPARED");
    world.until(&id, "SENT").await;
    let books = world.at_rest().await;
    assert_eq!(books.names(LOCK).await, ["KeyWriteRequested"]);
    let log = world.program.log();
    assert!(log.contains("taken over"), "{log}");
}

#[tokio::test]
async fn a_call_that_hangs_leaves_a_line_in_the_log() {
    let world = World::new(&arguments("put@1-=delay:60s", &["--virtual-locks", "off"]));
    let answer = world.write("k", Some(2)).await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    let log = world.program.log();
    assert!(log.contains("the shadow did not answer in time"), "{log}");
}

#[tokio::test]
async fn a_store_that_fails_is_a_503_and_nothing_was_done() {
    let world = World::new(&arguments("save@1=refuse", &["--virtual-locks", "off"]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.body["error"], "Service Unavailable");
    assert!(answer.header("retry-after").is_some());
    let books = world.at_rest().await;
    assert_eq!((books.names(LOCK).await, books.writes()), (vec![], vec![]));
    assert!(
        books
            .shadow(LOCK)
            .is_none_or(|shadow| shadow.entries.is_empty())
    );
    assert_eq!(world.write("k", Some(2)).await.status, 200);
}

#[tokio::test]
async fn a_save_whose_answer_is_lost_is_looked_for_and_made_once() {
    // The intent is lost and saved again; then the commit is saved, and nobody is told.
    let plan = "save@1=lose,save@3=drop-answer";
    let world = World::new(&arguments(plan, &["--virtual-locks", "off"]));
    assert_eq!(world.write("k", Some(2)).await.status, 200);
    let books = world.at_rest().await;
    assert_eq!(books.names(LOCK).await, ["KeyWriteRequested"]);
}

#[tokio::test]
async fn a_200_that_is_recorded_stays_one_when_the_store_fails_afterwards() {
    let world = World::new(&["--virtual-locks", "off"]);
    let request = world.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
    let waiting = tokio::spawn(request.header("Prefer", "wait=2").send());
    eventually("it is sent", || async {
        world.program.log().contains("SENT").then_some(())
    })
    .await;
    let path = world.folder.path().join("locks.sqlite");
    let damage = rusqlite::Connection::open(path).expect("the store");
    damage
        .execute_batch("UPDATE writes SET state = 'LOST'")
        .expect("damaged");
    let answer = waiting.await.expect("answered");
    assert_eq!(
        (answer.status, answer.body.get("write")),
        (200, None),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_504_whose_key_the_lock_has_settles_both() {
    let plan = "put@1=drop-answer,read@2-30=lose";
    let world = World::new(&arguments(plan, &["--behaviour", "123:latency=2s"]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    world.until(&answer.write_id(), "SUCCEEDED").await;
    let books = world.at_rest().await;
    assert_eq!(
        books.names(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
    assert_eq!(world.memory().keys.get(&2).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn withheld_is_a_502_after_the_fence_and_the_late_copy_is_no_key() {
    let world = World::new(&arguments("put@1-3=late:1500ms", &[]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let fenced = world
        .at_rest()
        .await
        .shadow(LOCK)
        .expect("a shadow")
        .version;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let books = world.at_rest().await;
    assert_eq!(books.names(LOCK).await, [""; 0]);
    let shadow = books.shadow(LOCK).expect("a shadow");
    assert_eq!(
        (shadow.version, shadow.entries.len()),
        (fenced, 0),
        "each late copy conflicts"
    );
    assert!(world.memory().keys.is_empty());
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    // The first copy is under way when the second is refused: only the fence makes the 502 true.
    let world = World::new(&arguments("put@1=late:1s,put@2=refuse", &[]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let books = world.at_rest().await;
    assert_eq!(books.names(LOCK).await, [""; 0]);
    assert!(world.memory().keys.is_empty());
}

#[tokio::test]
async fn an_update_that_arrives_while_the_fence_is_on_its_way_is_found_and_kept() {
    // The fence then conflicts, and no answer of the update's is there to pass for its own: tokens are
    // tested with the domain.
    let plan = "put@1=late:300ms,put@2-3=lose,update@5=delay:450ms";
    let world = World::new(&arguments(plan, &[]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.until(&answer.write_id(), "SUCCEEDED").await;
    let books = world.at_rest().await;
    assert_eq!(
        books.names(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_shadow_that_answers_late_is_a_200_while_there_is_time() {
    let world = World::new(&arguments("put@1=delay:300ms", &[]));
    assert_eq!(world.write("k", Some(2)).await.status, 200);
    world.at_rest().await;
}

#[tokio::test]
async fn other_locks_do_not_wait_for_a_slow_one() {
    let mut arguments = vec!["--faults", "put@1=delay:4s", "--locks", "1"];
    arguments.extend(["--request", "20s", "--shadow-call", "10s", "--lease", "40s"]);
    let world = World::new(&arguments);
    let slow = tokio::spawn(
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("the slow one is in progress", || async {
        world.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let other = world
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(other.status, 200);
    assert!(
        !slow.is_finished(),
        "the slow one still waits for its shadow"
    );
    assert_eq!(slow.await.expect("answered").status, 200);
}

#[tokio::test]
async fn writes_of_one_lock_take_turns_and_who_waits_too_long_is_told() {
    let world = World::new(&[
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
                world
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
    world.at_rest().await;
}
