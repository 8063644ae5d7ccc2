//! The audit of I5 finds and repairs differences, and does not disturb writes in progress.

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::WriteId;
use keywright_domain::policy::{self, Finding};
use keywright_domain::{AuditError, AuditReport};
use keywright_testkit::samples::lock_id;
use serde_json::json;

use crate::harness::{Faults, Harness, LOCK, succeeded};

const UNKNOWN: WriteId = WriteId::from_u128(404);

async fn audit(harness: &Harness, repair: bool) -> AuditReport {
    let report = harness.writes.audit(lock_id(LOCK), repair).await;
    report.expect("shadow and store answer")
}

fn entry(id: WriteId) -> serde_json::Value {
    json!({ id.to_string(): { "keyUuid": "evil", "seq": 1, "expiresAt": 1 } })
}

/// Expects that an audit finds exactly this, also a second time, that it repairs it, and that it finds nothing afterwards.
async fn assert_found_and_repaired(harness: &Harness, finding: Finding) {
    for _ in 0..2 {
        let found = audit(harness, false).await;
        assert_eq!(found.findings, [finding]);
        assert!(!found.repaired);
    }
    let repaired = audit(harness, true).await;
    assert_eq!(
        (repaired.findings, repaired.repaired),
        (vec![finding], true)
    );
    assert_eq!(audit(harness, false).await.findings, []);
}

#[tokio::test(start_paused = true)]
async fn finds_nothing_in_a_consistent_shadow() {
    let harness = Harness::new().await;
    assert_eq!(audit(&harness, true).await.findings, []);
    harness.write("key", Some(2)).await.expect("written");
    let done = harness.write("other", Some(3)).await.expect("written");
    let report = harness.report(done.write, succeeded()).await;
    harness.settle(&report).await;
    assert_eq!(audit(&harness, true).await.findings, []);
}

#[tokio::test(start_paused = true)]
async fn removes_an_entry_of_no_write() {
    let harness = Harness::new().await;
    harness.write("key", Some(2)).await.expect("written");
    harness
        .foreign_update(json!({ "desired": { "writeKey": entry(UNKNOWN) } }))
        .await;
    assert_found_and_repaired(&harness, Finding::UnknownEntry(UNKNOWN)).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn removes_an_entry_of_an_ended_write() {
    let harness = Harness::new().await;
    let ended = harness.write("key", Some(2)).await.expect("written").write;
    harness.withdraw(ended).await.expect("withdrawn");
    harness
        .foreign_update(json!({ "desired": { "writeKey": entry(ended) } }))
        .await;
    assert_found_and_repaired(&harness, Finding::UnknownEntry(ended)).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn restores_a_lost_entry() {
    let harness = Harness::new().await;
    let open = harness.write("key", Some(2)).await.expect("written").write;
    harness
        .foreign_update(json!({ "desired": { "writeKey": null } }))
        .await;
    assert_found_and_repaired(&harness, Finding::LostEntry(open)).await;
    harness.delete_shadow().await;
    assert_found_and_repaired(&harness, Finding::LostEntry(open)).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn clears_a_result_of_no_write() {
    let harness = Harness::new().await;
    harness.write("key", Some(2)).await.expect("written");
    harness.report(UNKNOWN, succeeded()).await;
    assert_found_and_repaired(&harness, Finding::StrayResult(UNKNOWN)).await;
}

#[tokio::test(start_paused = true)]
async fn settles_a_result_with_a_lost_report() {
    let harness = Harness::new().await;
    let open = harness.write("key", Some(2)).await.expect("written").write;
    harness.report(open, succeeded()).await;
    assert_found_and_repaired(&harness, Finding::UnheardResult(open)).await;
    assert_eq!(harness.state(open).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn finds_nothing_for_an_unknown_lock() {
    let harness = Harness::new().await;
    let report = harness.writes.audit(lock_id(404), true).await;
    assert_eq!(report, Ok(AuditReport::default()));
}

#[tokio::test(start_paused = true)]
async fn fails_if_the_shadow_cannot_be_read() {
    let harness = Harness::new().await;
    harness.inject(Faults {
        read: &[Fault::Refuse],
        ..Faults::default()
    });
    let report = harness.writes.audit(lock_id(LOCK), true).await;
    assert!(matches!(report, Err(AuditError::Shadow(_))), "{report:?}");
}

/// A write and an audit overlap at every offset. The audit never takes the write's entry as unknown, and the write succeeds.
#[tokio::test(start_paused = true)]
async fn does_not_disturb_a_concurrent_write() {
    let pause = |millis| Fault::Delay(Duration::from_millis(millis));
    for start in 0..60 {
        let harness = Harness::new().await;
        harness.write("first", Some(0)).await.expect("written");
        // Each step of both takes 10 ms, so that all interleavings occur.
        let steps = vec![pause(10); 16];
        harness.inject(Faults {
            update: &steps,
            read: &steps,
            save: &steps,
            load: &steps,
        });
        let writing = harness.write("key", Some(2));
        let auditing = async {
            tokio::time::sleep(Duration::from_millis(start)).await;
            audit(&harness, true).await
        };
        let (written, report) = tokio::join!(writing, auditing);
        assert_eq!(report.findings, [], "after {start} ms");
        written.expect("written");
        harness.end_faults();
        harness.check_at_rest().await;
    }
}

/// An audit that read the store first would find the entry of a write that was sent between its two reads.
#[tokio::test(start_paused = true)]
async fn the_shadow_must_be_read_before_the_store() {
    let harness = Harness::new().await;
    harness.create_shadow().await;
    let snapshot = harness.lock().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    let shadow = harness.shadow();
    let findings = policy::audit(shadow.as_ref(), &snapshot, &[]);
    assert_eq!(findings, [Finding::UnknownEntry(written.write)]);
    // In the right order there is no finding.
    assert_eq!(
        policy::audit(shadow.as_ref(), &harness.lock().await, &[]),
        []
    );
}
