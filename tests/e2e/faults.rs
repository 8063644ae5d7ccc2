//! A write over a shadow that fails, by name.

use std::time::Duration;

use serde_json::json;

use crate::world::{FAST, LOCK, World, eventually};
use keywright_tests::Books;

fn arguments<'a>(faults: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--faults", faults];
    all.extend(FAST);
    all.extend(more);
    all
}

async fn at_rest(world: &World) -> Books {
    eventually("the books balance", || async {
        let books = world.books().await;
        books.check_at_rest(&[LOCK]).await.ok().map(|()| books)
    })
    .await
}

#[tokio::test]
async fn refused_is_a_502_and_nothing_is_anywhere() {
    for fault in ["refuse", "not-sent"] {
        let plan = format!("put@1={fault}");
        let world = World::new(&arguments(&plan, &[]));
        let answer = world.write("k", Some(2)).await;
        assert_eq!(answer.status, 502, "{fault}: {answer:?}");
        let books = at_rest(&world).await;
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
    let books = at_rest(&world).await;
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
    assert!(answer.header("retry-after").is_some());
    let id = answer.write_id();
    assert_eq!(world.status(&id).await["state"], "PREPARED");
    world.until(&id, "SENT").await;
    let books = at_rest(&world).await;
    assert_eq!(books.names(LOCK).await, ["KeyWriteRequested"]);
}

#[tokio::test]
async fn a_504_whose_key_the_lock_has_settles_both() {
    let plan = "put@1=drop-answer,read@2-30=lose";
    let world = World::new(&arguments(plan, &["--behaviour", "123:latency=2s"]));
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    world.until(&answer.write_id(), "SUCCEEDED").await;
    let books = at_rest(&world).await;
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
    let fenced = at_rest(&world)
        .await
        .shadow(LOCK)
        .expect("a shadow")
        .version;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let books = at_rest(&world).await;
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
    let books = at_rest(&world).await;
    assert_eq!(books.names(LOCK).await, [""; 0]);
    assert!(world.memory().keys.is_empty());
}

#[tokio::test]
async fn a_late_answer_of_the_update_is_not_taken_for_the_fences() {
    // The update arrives while the fence is on its way, which then conflicts: the write is found and kept.
    let plan = "put@1=late:300ms,put@2-3=lose,update@5=delay:450ms";
    let world = World::new(&arguments(plan, &[]));
    let answer = world.write("k", Some(2)).await;
    let expected: &[&str] = match answer.status {
        200 | 504 => &["KeyWriteRequested", "KeyWriteConfirmed"],
        502 => &[],
        _ => panic!("{answer:?}"),
    };
    eventually("the books balance", || async {
        let books = world.books().await;
        let balanced = books.check_at_rest(&[LOCK]).await.is_ok();
        (balanced && books.names(LOCK).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shadow_that_answers_late_is_a_200_while_there_is_time() {
    let world = World::new(&arguments("put@1=delay:300ms", &[]));
    assert_eq!(world.write("k", Some(2)).await.status, 200);
    at_rest(&world).await;
}

#[tokio::test]
async fn other_locks_do_not_wait_for_a_slow_one() {
    let plan = "put@1=delay:400ms";
    let world = World::new(&arguments(plan, &["--locks", "1"]));
    let slow = tokio::spawn(
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
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
        "put@1-=delay:450ms",
        "--turn",
        "1s",
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
        }
        statuses.push(answer.status);
    }
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!(count(200) + count(503), 6, "{statuses:?}");
    assert!(count(200) >= 2 && count(503) >= 1, "{statuses:?}");
    at_rest(&world).await;
}
