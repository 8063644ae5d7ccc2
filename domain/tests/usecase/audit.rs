//! The audit of I5 finds what differs, puts it right, and leaves alone what only moves.

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::WriteId;
use keywright_domain::policy::{self, Finding};
use keywright_domain::{AuditError, AuditReport};
use keywright_testkit::samples::lock_id;
use serde_json::json;

use crate::world::{LOCK, World, succeeded};

const STRANGER: WriteId = WriteId::from_u128(404);

async fn audit(world: &World, repair: bool) -> AuditReport {
    let audited = world.writes.audit(lock_id(LOCK), repair).await;
    audited.expect("shadow and store answer")
}

fn entry(id: WriteId) -> serde_json::Value {
    json!({ id.to_string(): { "keyUuid": "evil", "seq": 1, "expiresAt": 1 } })
}

/// Finds exactly this, twice when it only looks; puts it right; and then finds nothing.
async fn finds_and_repairs(world: &World, finding: Finding) {
    for _ in 0..2 {
        let found = audit(world, false).await;
        assert_eq!(found.findings, [finding]);
        assert!(!found.repaired);
    }
    let repaired = audit(world, true).await;
    assert_eq!(
        (repaired.findings, repaired.repaired),
        (vec![finding], true)
    );
    assert_eq!(audit(world, false).await.findings, []);
}

#[tokio::test(start_paused = true)]
async fn a_world_in_order_has_nothing_to_find() {
    let world = World::new().await;
    assert_eq!(audit(&world, true).await.findings, []);
    world.write("key", Some(2)).await.expect("written");
    let done = world.write("other", Some(3)).await.expect("written");
    let report = world.report(done.write, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    assert_eq!(audit(&world, true).await.findings, []);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_nobody_gave_out_is_taken_off() {
    let world = World::new().await;
    world.write("key", Some(2)).await.expect("written");
    world
        .tamper(json!({ "desired": { "writeKey": entry(STRANGER) } }))
        .await;
    finds_and_repairs(&world, Finding::UnknownEntry(STRANGER)).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_write_that_is_over_is_taken_off() {
    let world = World::new().await;
    let over = world.write("key", Some(2)).await.expect("written").write;
    world.withdraw(over).await.expect("withdrawn");
    world
        .tamper(json!({ "desired": { "writeKey": entry(over) } }))
        .await;
    finds_and_repairs(&world, Finding::UnknownEntry(over)).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_lost_is_put_back() {
    let world = World::new().await;
    let open = world.write("key", Some(2)).await.expect("written").write;
    world
        .tamper(json!({ "desired": { "writeKey": null } }))
        .await;
    finds_and_repairs(&world, Finding::LostEntry(open)).await;
    world.delete_shadow().await;
    finds_and_repairs(&world, Finding::LostEntry(open)).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_of_no_write_is_cleared() {
    let world = World::new().await;
    world.write("key", Some(2)).await.expect("written");
    world.report(STRANGER, succeeded()).await;
    finds_and_repairs(&world, Finding::StrayResult(STRANGER)).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_nobody_heard_is_settled() {
    let world = World::new().await;
    let open = world.write("key", Some(2)).await.expect("written").write;
    world.report(open, succeeded()).await;
    finds_and_repairs(&world, Finding::UnheardResult(open)).await;
    assert_eq!(world.state(open).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_does_not_exist_has_nothing_to_find() {
    let world = World::new().await;
    let audited = world.writes.audit(lock_id(404), true).await;
    assert_eq!(audited, Ok(AuditReport::default()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_an_error() {
    let world = World::new().await;
    world.trouble_at([&[], &[Fault::Refuse]], [&[], &[]]);
    let audited = world.writes.audit(lock_id(LOCK), true).await;
    assert!(matches!(audited, Err(AuditError::Shadow(_))), "{audited:?}");
}

/// A write is under way at each moment of an audit: its entry is never taken for a stranger's, and it arrives.
#[tokio::test(start_paused = true)]
async fn an_audit_beside_writes_harms_none_of_them() {
    let pause = |millis| Fault::Delay(Duration::from_millis(millis));
    for start in 0..60 {
        let world = World::new().await;
        world.write("first", Some(0)).await.expect("written");
        // Each step of both takes its time, so that they meet at all moments.
        let steps = vec![pause(10); 16];
        world.trouble_at([&steps, &steps], [&steps, &steps]);
        let writing = world.write("key", Some(2));
        let auditing = async {
            tokio::time::sleep(Duration::from_millis(start)).await;
            audit(&world, true).await
        };
        let (written, audited) = tokio::join!(writing, auditing);
        assert_eq!(audited.findings, [], "after {start} ms");
        written.expect("written");
        world.no_trouble();
        world.check_at_rest().await;
    }
}

/// What an audit would find that reads the store first: the entry of a write that was sent between its readings.
#[tokio::test(start_paused = true)]
async fn an_audit_that_reads_the_store_first_would_take_a_good_entry_off() {
    let world = World::new().await;
    world.create_shadow().await;
    let snapshot = world.lock().await;
    let written = world.write("key", Some(2)).await.expect("written");
    let shadow = world.shadow();
    let findings = policy::audit(shadow.as_ref(), &snapshot, &[]);
    assert_eq!(findings, [Finding::UnknownEntry(written.write)]);
    // In the right order there is nothing.
    assert_eq!(policy::audit(shadow.as_ref(), &world.lock().await, &[]), []);
}
