//! Writes after their 200: reports, repeated and superseding writes.

use std::time::Duration;

use keywright_adapters::decorator::{Fault, FaultPlan, Operation};
use keywright_domain::model::{ThingName, WriteId};
use keywright_domain::policy::{IgnoreReason, Rejection};
use keywright_domain::{Settlement, WriteError};
use serde_json::json;

use crate::harness::{Faults, Harness, succeeded};

#[tokio::test(start_paused = true)]
async fn a_report_confirms_the_write_and_leaves_no_delta() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    assert_ne!(harness.delta(), json!({}));
    let report = harness.report(written.write, succeeded()).await;
    harness.settle(&report).await;
    assert_eq!(
        harness.event_names().await,
        ["LockCreated", "KeyWriteRequested", "KeyWriteConfirmed"]
    );
    assert_eq!(harness.delta(), json!({}));
    let again = harness.settle(&report).await;
    assert_eq!(again, [Settlement::Ignored(IgnoreReason::Repeated)]);
    let keys = harness.lock().await.lock.keys;
    assert!(
        keys.iter()
            .any(|k| k.held.key.as_str() == "key" && k.held.user.is_none())
    );
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_progress_report_changes_the_state_and_records_no_event() {
    let harness = Harness::new().await;
    let written = harness.write("key", None).await.expect("written");
    let report = harness
        .report(written.write, json!({ "status": "IN_PROGRESS" }))
        .await;
    harness.settle(&report).await;
    assert_eq!(harness.state(written.write).await, "IN_PROGRESS");
    assert_eq!(harness.event_names().await.len(), 2);
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_locks_reason() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    let failed = json!({ "status": "FAILED", "reason": "NoSpace" });
    let report = harness.report(written.write, failed).await;
    harness.settle(&report).await;
    assert_eq!(harness.state(written.write).await, "FAILED");
    assert_eq!(harness.event_names().await.last(), Some(&"KeyWriteFailed"));
}

#[tokio::test(start_paused = true)]
async fn the_same_open_write_is_not_repeated_and_a_settled_one_is() {
    let harness = Harness::new().await;
    let first = harness.write("key", Some(2)).await.expect("written");
    let again = harness.write("key", Some(2)).await.expect("nothing new");
    assert_eq!(
        (again.write, again.event, again.version),
        (first.write, None, first.version)
    );
    let report = harness.report(first.write, succeeded()).await;
    harness.settle(&report).await;
    let new = harness.write("key", Some(2)).await.expect("written again");
    assert!(new.event.is_some() && new.write != first.write);
}

#[tokio::test(start_paused = true)]
async fn a_newer_write_supersedes_the_open_write_for_its_slot() {
    let harness = Harness::new().await;
    let old = harness.write("old", Some(2)).await.expect("written");
    let new = harness.write("new", Some(2)).await.expect("written");
    let beside = harness.write("beside", None).await.expect("written");
    assert_eq!(harness.state(old.write).await, "SUPERSEDED");
    assert_eq!(
        harness.shadow().expect("a shadow").entries,
        [new.write, beside.write]
    );
    let report = harness.report(new.write, succeeded()).await;
    harness.settle(&report).await;
    let late = harness.report(old.write, succeeded()).await;
    harness.settle(&late).await;
    let stored = harness.stored(old.write).await.expect("the write");
    assert_eq!(
        stored.state.name(),
        "SUCCEEDED",
        "a late result is recorded"
    );
    let keys = harness.lock().await.lock.keys;
    assert!(
        keys.iter().any(|k| k.held.key.as_str() == "new"),
        "the newer key stays in its slot"
    );
    harness.check(&[]).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_early_report_settles_the_write_and_its_request() {
    let harness = Harness::new().await;
    harness.write("first", Some(0)).await.expect("written");
    let plan = FaultPlan::default()
        .then(Operation::Update, [Fault::DropAnswer])
        .then(Operation::Read, [Fault::LoseRequest; 64]);
    harness.faults.set(plan);
    let writing = harness.write("key", Some(2));
    let reporting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let prepared = harness
            .lock()
            .await
            .prepared()
            .expect("not committed yet")
            .id;
        let report = harness.report(prepared, succeeded()).await;
        harness.settle(&report).await;
        prepared
    };
    let (written, id) = tokio::join!(writing, reporting);
    assert_eq!(written.expect("the report proves the write").write, id);
    assert_eq!(harness.state(id).await, "SUCCEEDED");
    assert_eq!(
        harness.event_names().await[2..],
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test(start_paused = true)]
async fn reports_of_unknown_writes_and_other_things_change_nothing() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    let before = harness.stream().await;
    let mut report = harness.report(WriteId::from_u128(404), succeeded()).await;
    assert_eq!(
        harness.settle(&report).await,
        [Settlement::Ignored(IgnoreReason::Contradiction)]
    );
    report.results[0].write = written.write;
    report.thing = ThingName::new("another-thing").expect("a thing name");
    assert_eq!(
        harness.settle(&report).await,
        [Settlement::Ignored(IgnoreReason::WrongThing)]
    );
    assert_eq!(harness.stream().await, before);
}

#[tokio::test(start_paused = true)]
async fn rejects_the_seventeenth_open_write() {
    let harness = Harness::new().await;
    for index in 0..16 {
        harness.write("key", Some(index)).await.expect("written");
    }
    let answer = harness.write("key", Some(16)).await;
    assert_eq!(
        answer,
        Err(WriteError::Rejected(Rejection::TooManyOpenWrites))
    );
    harness
        .write("other", Some(3))
        .await
        .expect("a write that supersedes another adds none");
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_writes_of_one_lock_are_served_in_order() {
    let harness = Harness::new().await;
    let write = |n: u64| harness.write("key", Some(n));
    let answers = tokio::join!(
        write(1),
        write(2),
        write(3),
        write(4),
        write(5),
        write(6),
        write(7),
        write(8)
    );
    let versions = [
        answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6, answers.7,
    ]
    .map(|answer| answer.expect("written").version.0);
    assert_eq!(
        versions,
        [2, 3, 4, 5, 6, 7, 8, 9],
        "first come, first served"
    );
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_success_with_a_lost_report_is_settled_and_not_superseded() {
    let harness = Harness::new().await;
    let old = harness.write("old", Some(2)).await.expect("written");
    harness.report(old.write, succeeded()).await;
    let new = harness
        .write("new", Some(2))
        .await
        .expect("the conflict makes the request read the shadow");
    assert_eq!(
        (
            harness.state(old.write).await,
            harness.state(new.write).await
        ),
        ("SUCCEEDED", "SENT")
    );
    assert!(!harness.event_names().await.contains(&"KeyWriteSuperseded"));
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_write_is_no_answer_while_an_undecided_write_may_supersede_it() {
    let harness = Harness::new().await;
    let first = harness.write("key-1", Some(2)).await.expect("written");
    let plan = FaultPlan::default().then(Operation::Update, [Fault::DropAnswer]);
    harness
        .faults
        .set(plan.then(Operation::Read, [Fault::LoseRequest; 500]));
    let undecided = harness.write("key-2", Some(2)).await;
    let Err(WriteError::Undecided(undecided)) = undecided else {
        panic!("{undecided:?}")
    };
    assert_eq!(
        harness.write("key-1", Some(2)).await,
        Err(WriteError::Busy {
            undecided: Some(undecided)
        })
    );
    harness.faults.set(FaultPlan::default());
    harness.recover().await;
    let again = harness
        .write("key-1", Some(2))
        .await
        .expect("written again");
    assert!(again.event.is_some() && again.write != first.write);
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_settled_does_not_block_the_others() {
    let harness = Harness::new().await;
    let one = harness
        .write("key-1", Some(1))
        .await
        .expect("written")
        .write;
    let two = harness
        .write("key-2", Some(2))
        .await
        .expect("written")
        .write;
    harness.report(one, succeeded()).await;
    let mut report = harness.report(two, succeeded()).await;
    let mut first = report.results[0].clone();
    first.write = one;
    report.results.insert(0, first);
    harness.inject(Faults {
        save: &[Fault::NotSent],
        ..Faults::default()
    });
    assert!(
        harness.writes.settle(&report).await.is_err(),
        "the report must be delivered again"
    );
    assert_eq!(harness.state(one).await, "SENT");
    assert_eq!(harness.state(two).await, "SUCCEEDED");
    harness.settle(&report).await;
    assert_eq!(harness.state(one).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn counts_contradictions() {
    let harness = Harness::new().await;
    let report = harness.report(WriteId::from_u128(404), succeeded()).await;
    harness.settle(&report).await;
    assert_eq!(harness.writes.contradictions(), 1);
}
