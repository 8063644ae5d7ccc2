//! Results that violate the device contract: they are recorded, and the write keeps the anomalies.

use std::time::Duration;

use keywright_domain::model::{Anomaly, DeviceReport, LockEvent, *};
use keywright_domain::policy::{Finding, IgnoreReason};
use keywright_domain::{MaintenanceOutcome, Settlement};
use keywright_testkit::samples::{lock_id, thing};
use serde_json::{Value, json};

use crate::harness::{Harness, LOCK, succeeded};

/// Longer than `confirm_within` and `clear_within`.
const SOON: Duration = Duration::from_secs(61);

fn failed() -> Value {
    json!({ "status": "FAILED", "reason": "NoSpace" })
}

fn succeeded_in(slot: Value) -> Value {
    json!({ "status": "SUCCEEDED", "keyIndexNumber": slot })
}

/// The report of the whole shadow after this update.
async fn report(harness: &Harness, update: Value) -> DeviceReport {
    harness.foreign_update(update).await;
    let shadow = harness.shadow().expect("a shadow");
    DeviceReport {
        thing: thing(lock_id(LOCK)),
        shadow_version: Some(shadow.version),
        results: shadow.results,
        entries: shadow.entries,
    }
}

/// The lock reports a result and removes its entry.
async fn report_result(harness: &Harness, id: WriteId, result: Value) -> Settlement {
    let report = harness.report(id, result).await;
    let mut settlements = harness.settle(&report).await;
    assert_eq!(settlements.len(), 1);
    settlements.remove(0)
}

async fn anomalies(harness: &Harness, id: WriteId) -> Vec<Anomaly> {
    let write = harness.stored(id).await.expect("a stored write");
    write.anomalies.into_iter().collect()
}

async fn soon(harness: &Harness) {
    harness.clock.advance(SOON);
    harness.maintain().await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_result_is_cleared_and_its_write_stays_open() {
    for result in [
        json!({ "status": "succeeded" }),
        json!({}),
        json!("SUCCESS"),
        json!(7),
        json!(["SUCCEEDED"]),
    ] {
        let harness = Harness::new().await;
        let id = harness.write("key", Some(2)).await.expect("written").write;
        let update = json!({ "reported": { "writeKeyResult": { id.to_string(): result } } });
        let report = report(&harness, update).await;
        harness.settle(&report).await;
        assert_eq!(harness.state(id).await, "SENT", "{result}");
        assert_eq!(anomalies(&harness, id).await, [Anomaly::UnreadableResult]);
        let again = harness.settle(&report).await;
        assert_eq!(again, [Settlement::Ignored(IgnoreReason::Repeated)]);
        soon(&harness).await;
        let shadow = harness.shadow().expect("a shadow");
        assert!(shadow.results.is_empty(), "{result}");
        assert_eq!(shadow.entries, [id], "the lock can still succeed");
        report_result(&harness, id, succeeded_in(json!(2))).await;
        assert_eq!(harness.state(id).await, "SUCCEEDED");
        soon(&harness).await;
        harness.check(&[]).await;
        harness.check_at_rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn maintenance_finds_an_unreadable_result_with_a_lost_report() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let result = json!({ "reported": { "writeKeyResult": { id.to_string(): "done" } } });
    harness.foreign_update(result).await;
    soon(&harness).await;
    assert_eq!(anomalies(&harness, id).await, [Anomaly::UnreadableResult]);
    assert!(harness.shadow().expect("a shadow").results.is_empty());
}

/// Writes 120 keys to one slot. The lock answers each with this update of the shadow, and maintenance then leaves no results and so many
/// entries there.
async fn write_repeatedly(update: impl Fn(&str) -> Value, entries: usize) {
    let harness = Harness::new().await;
    for n in 0..120 {
        let written = harness.write(&format!("key-{n}"), Some(2)).await;
        let id = written.unwrap_or_else(|error| panic!("write {n}: {error}"));
        let report = report(&harness, update(&id.write.to_string())).await;
        harness.settle(&report).await;
        soon(&harness).await;
        let shadow = harness.shadow().expect("a shadow");
        let left = (shadow.results.len(), shadow.entries.len());
        assert_eq!(left, (0, entries), "{shadow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_results_do_not_fill_the_shadow() {
    // The write stays open.
    let update = |id: &str| json!({ "reported": { "writeKeyResult": { id: {} } } });
    write_repeatedly(update, 1).await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_a_lock_leaves_do_not_fill_the_shadow() {
    let update = |id: &str| {
        json!({
            "desired": { "writeKey": { id: {} } },
            "reported": { "writeKeyResult": { id: succeeded_in(json!(2)) } },
        })
    };
    write_repeatedly(update, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_contradicting_result_becomes_an_anomaly() {
    for (first, second, state) in [
        (failed(), succeeded_in(json!(2)), "FAILED"),
        (succeeded_in(json!(2)), failed(), "SUCCEEDED"),
        (succeeded_in(json!(2)), succeeded_in(json!(3)), "SUCCEEDED"),
    ] {
        let harness = Harness::new().await;
        let id = harness.write("key", Some(2)).await.expect("written").write;
        report_result(&harness, id, first).await;
        assert_eq!(harness.writes.contradictions(), 0);
        let events = harness.stream().await.len();
        for _ in 0..2 {
            report_result(&harness, id, second.clone()).await;
        }
        assert_eq!(harness.state(id).await, state, "the first result stays");
        let found = anomalies(&harness, id).await;
        assert!(found.contains(&Anomaly::ContradictingResult), "{found:?}");
        assert_eq!(harness.writes.contradictions(), 1, "counted once");
        assert_eq!(harness.stream().await.len(), events, "no event");
        soon(&harness).await;
        assert!(harness.shadow().expect("a shadow").results.is_empty());
        // A contradicting result can also arrive after the first one was cleared.
        report_result(&harness, id, second).await;
        soon(&harness).await;
        assert!(harness.shadow().expect("a shadow").results.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn another_slot_than_requested_is_recorded() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(7)).await.expect("written").write;
    report_result(&harness, id, succeeded_in(json!(77))).await;
    let write = harness.stored(id).await.expect("a stored write");
    assert_eq!(write.slot.index, KeyIndex::new(7).ok());
    assert_eq!(write.reported_index, KeyIndex::new(77).ok());
    assert_eq!(anomalies(&harness, id).await, [Anomaly::OtherSlot]);
    let stream = harness.stream().await;
    let confirmed = &stream.last().expect("an event").event;
    let LockEvent::KeyWriteConfirmed { slot, .. } = confirmed else {
        panic!("{confirmed:?}")
    };
    assert_eq!(slot.index, KeyIndex::new(77).ok());
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_or_missing_slot_becomes_an_anomaly() {
    for (result, expected) in [
        (succeeded_in(json!("4")), Some(Anomaly::UnreadableSlot)),
        (succeeded_in(json!(-1)), Some(Anomaly::UnreadableSlot)),
        (succeeded_in(json!(4.5)), Some(Anomaly::UnreadableSlot)),
        (succeeded(), Some(Anomaly::MissingSlot)),
        (succeeded_in(json!(4)), None),
        (succeeded_in(json!(4.0)), None),
    ] {
        let harness = Harness::new().await;
        let id = harness.write("key", Some(4)).await.expect("written").write;
        report_result(&harness, id, result.clone()).await;
        let expected: Vec<Anomaly> = expected.into_iter().collect();
        assert_eq!(anomalies(&harness, id).await, expected, "{result}");
        let write = harness.stored(id).await.expect("a stored write");
        assert_eq!(
            (write.state.name(), write.reported_index),
            ("SUCCEEDED", None)
        );
        let held = &harness.lock().await.lock.keys;
        let slots: Vec<_> = held.iter().map(|key| key.held.index).collect();
        assert!(slots.contains(&KeyIndex::new(4).ok()), "{slots:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_the_lock_chose_is_no_anomaly() {
    let harness = Harness::new().await;
    let id = harness.write("key", None).await.expect("written").write;
    report_result(&harness, id, succeeded_in(json!(9))).await;
    assert_eq!(anomalies(&harness, id).await, []);
    let write = harness.stored(id).await.expect("a stored write");
    assert_eq!(write.reported_index, KeyIndex::new(9).ok());
}

/// A lock that writes `{}` instead of `null` leaves the entry on the shadow. The next write or maintenance removes it with the
/// result.
#[tokio::test(start_paused = true)]
async fn an_entry_that_the_lock_left_is_removed_with_its_result() {
    for next_write in [false, true] {
        let harness = Harness::new().await;
        let id = harness.write("key", Some(2)).await.expect("written").write;
        let update = json!({
            "desired": { "writeKey": { id.to_string(): {} } },
            "reported": { "writeKeyResult": { id.to_string(): succeeded_in(json!(2)) } },
        });
        let report = report(&harness, update).await;
        harness.settle(&report).await;
        assert_eq!(anomalies(&harness, id).await, [Anomaly::EntryLeft]);
        assert_eq!(harness.shadow().expect("a shadow").entries, [id]);
        match next_write {
            true => drop(harness.write("other", Some(3)).await.expect("written")),
            false => soon(&harness).await,
        }
        let shadow = harness.shadow().expect("a shadow");
        assert!(!shadow.has_write(id), "{shadow:?}");
        harness.check_at_rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn maintenance_removes_an_entry_of_no_write() {
    const UNKNOWN: WriteId = WriteId::from_u128(0xbad);
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let entry = json!({ "keyUuid": "a-key", "seq": 1, "expiresAt": 1_790_000_000 });
    let update = json!({ "desired": { "writeKey": { UNKNOWN.to_string(): entry } } });
    harness.foreign_update(update).await;
    harness.clock.advance(SOON);
    let open = harness.stored(id).await.expect("a stored write");
    let checked = harness.writes.maintain_write(&open).await;
    let MaintenanceOutcome::Repaired(audited) = checked else {
        panic!("{checked:?}")
    };
    assert_eq!(audited.findings, [Finding::UnknownEntry(UNKNOWN)]);
    assert!(audited.repaired);
    assert_eq!(harness.shadow().expect("a shadow").entries, [id]);
    let open = harness.stored(id).await.expect("a stored write");
    assert_eq!(
        harness.writes.maintain_write(&open).await,
        MaintenanceOutcome::Done
    );
    harness.check_at_rest().await;
}
