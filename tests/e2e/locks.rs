//! What virtual locks do to a write.

use serde_json::json;

use crate::harness::{FAST, LOCK, World, eventually};

#[tokio::test]
async fn written_while_the_lock_is_offline_and_confirmed_when_it_is_back() {
    let world = World::new(&["--behaviour", "123:latency=0s,offline=4s"]);
    let id = world.write("k", Some(2)).await.write_id();
    assert_eq!(world.status(&id).await["state"], "SENT");
    world.until(&id, "SUCCEEDED").await;
    assert_eq!(world.memory().keys.get(&2).map(String::as_str), Some("k"));
}

#[tokio::test]
async fn a_lock_fails_with_each_reason() {
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
        let world = World::new(&["--behaviour", &behaviour]);
        let id = world.write("k", Some(2)).await.write_id();
        let status = world.until(&id, "FAILED").await;
        assert_eq!(status["reason"], reason);
        assert!(status["retry"].is_string());
        let books = world.balanced().await;
        assert_eq!(
            books.names(LOCK).await,
            ["KeyWriteRequested", "KeyWriteFailed"]
        );
    }
}

#[tokio::test]
async fn a_reason_that_is_not_ours_is_kept_as_the_locks_own_code() {
    let world = World::new(&["--behaviour", "123:latency=0s,fail=E42"]);
    let id = world.write("k", Some(2)).await.write_id();
    let status = world.until(&id, "FAILED").await;
    assert_eq!(
        (&status["reason"], &status["code"]),
        (&json!("DeviceError"), &json!("E42"))
    );
}

#[tokio::test]
async fn a_slot_that_the_lock_does_not_have_is_a_failure() {
    let world = World::new(&["--behaviour", "123:latency=0s,capacity=3"]);
    let id = world.write("k", Some(3)).await.write_id();
    assert_eq!(
        world.until(&id, "FAILED").await["reason"],
        "IndexOutOfRange"
    );
}

#[tokio::test]
async fn a_report_that_comes_twice_counts_once() {
    let world = World::new(&["--behaviour", "123:latency=0s,twice"]);
    let id = world.write("k", Some(2)).await.write_id();
    world.until(&id, "SUCCEEDED").await;
    // The next write comes after both reports in the lock's order.
    let next = world.write("k", Some(3)).await.write_id();
    world.until(&next, "SUCCEEDED").await;
    let names = world.books().await.names(LOCK).await;
    assert_eq!(
        names.iter().filter(|n| **n == "KeyWriteConfirmed").count(),
        2,
        "{names:?}"
    );
}

#[tokio::test]
async fn a_lock_that_waits_for_a_card_says_so() {
    // It is there when the write is committed: that it is at one before that is not recorded.
    let world = World::new(&["--behaviour", "123:card=600ms,offline=4s"]);
    let id = world.write("k", Some(2)).await.write_id();
    world.until(&id, "SUCCEEDED").await;
    let log = world.program.log();
    let steps = ["SENT", "IN_PROGRESS", "SUCCEEDED"].map(|step| log.find(step));
    assert!(steps.is_sorted() && steps[0].is_some(), "{steps:?}: {log}");
    let books = world.books().await;
    assert_eq!(
        books.names(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_report_after_expiry_is_recorded_as_late() {
    // The lock must hear of the write before that has expired, also on a busy machine: it skips expired ones.
    let world = World::new(&["--behaviour", "123:latency=10s", "--time-to-live", "4s"]);
    let id = world.write("k", Some(2)).await.write_id();
    world.until(&id, "EXPIRED").await;
    assert!(
        world
            .books()
            .await
            .shadow(LOCK)
            .expect("a shadow")
            .entries
            .is_empty()
    );
    let status = world.until(&id, "SUCCEEDED").await;
    assert_eq!(status["late"], true);
    let names = world.books().await.names(LOCK).await;
    assert_eq!(
        names,
        ["KeyWriteRequested", "KeyWriteExpired", "KeyWriteConfirmed"]
    );
}

#[tokio::test]
async fn a_report_before_the_commit_settles_both() {
    // Nobody can read the shadow, so that only the lock's report tells that the update was taken.
    let mut arguments = vec!["--faults", "put@1=drop-answer,read@2-=lose"];
    arguments.extend(FAST);
    let world = World::new(&arguments);
    let answer = world.write("k", Some(2)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    // Long before its lease ends and somebody else takes it up.
    assert_eq!(world.status(&answer.write_id()).await["state"], "SUCCEEDED");
    let names = world.books().await.names(LOCK).await;
    assert_eq!(names, ["KeyWriteRequested", "KeyWriteConfirmed"]);
}

#[tokio::test]
async fn superseded_and_withdrawn_writes_never_reach_the_lock() {
    // Long enough for three requests on a busy machine.
    let world = World::new(&["--behaviour", "123:latency=0s,offline=6s"]);
    let superseded = world.write("superseded", Some(2)).await.write_id();
    let withdrawn = world.write("withdrawn", Some(3)).await.write_id();
    let path = format!("/locks/{LOCK}/writes/{withdrawn}");
    let request = world
        .program
        .request("DELETE", &path)
        .bearer(&world.program.token);
    assert_eq!(request.send().await.status, 200);
    let newer = world.write("newer", Some(2)).await.write_id();
    world.until(&newer, "SUCCEEDED").await;
    let memory = world.memory();
    assert_eq!(
        memory.keys.into_iter().collect::<Vec<_>>(),
        [(2, "newer".to_owned())]
    );
    assert_eq!(world.status(&superseded).await["state"], "SUPERSEDED");
    assert_eq!(world.status(&withdrawn).await["state"], "WITHDRAWN");
}

#[tokio::test]
async fn a_settled_write_leaves_no_delta_behind_and_its_result_is_cleared() {
    let world = World::new(&["--clear-within", "1s"]);
    let id = world.write("k", Some(2)).await.write_id();
    world.until(&id, "SUCCEEDED").await;
    let books = world.books().await;
    let name = keywright_shadow::ShadowName::Named("keys".into());
    let document = books
        .shadows
        .document("demo-lock-123", &name)
        .expect("a shadow");
    assert!(document.delta().is_empty(), "{document:?}");
    assert_eq!(books.shadow(LOCK).expect("a shadow").results.len(), 1);
    eventually("the result is off the shadow", || async {
        let shadow = world.books().await.shadow(LOCK).expect("a shadow");
        shadow.results.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_lock_leaves_its_write_unconfirmed_and_then_expired() {
    let arguments = [
        "--behaviour",
        "123:latency=0s,silent",
        "--time-to-live",
        "2s",
        "--confirm-within",
        "1s",
    ];
    let world = World::new(&arguments);
    let id = world.write("k", Some(2)).await.write_id();
    eventually("it is unconfirmed", || async {
        (world.status(&id).await["unconfirmed"] == true).then_some(())
    })
    .await;
    world.until(&id, "EXPIRED").await;
    world.at_rest().await;
}
