//! Locks whose answers break the device contract: what they did is recorded, and what is odd about it stays with the write.

use std::time::Duration;

use keywright_domain::model::{Anomaly, DeviceReport, LockEvent, *};
use keywright_domain::policy::{Finding, IgnoreReason};
use keywright_domain::{MaintenanceOutcome, Settlement};
use keywright_testkit::samples::{lock_id, thing};
use serde_json::{Value, json};

use crate::world::{LOCK, World, succeeded};

/// Longer than `confirm_within` and `clear_within`.
const SOON: Duration = Duration::from_secs(61);

fn failed() -> Value {
    json!({ "status": "FAILED", "reason": "NoSpace" })
}

fn succeeded_in(slot: Value) -> Value {
    json!({ "status": "SUCCEEDED", "keyIndexNumber": slot })
}

/// A report of the shadow as it is after this update.
async fn report(world: &World, update: Value) -> DeviceReport {
    world.tamper(update).await;
    let shadow = world.shadow().expect("a shadow");
    DeviceReport {
        thing: thing(lock_id(LOCK)),
        shadow_version: Some(shadow.version),
        results: shadow.results,
        entries: shadow.entries,
    }
}

/// The lock answers, and takes its entry off.
async fn answer(world: &World, id: WriteId, result: Value) -> Settlement {
    let report = world.report(id, result).await;
    let mut settlements = world.writes.settle(&report).await.expect("settled");
    assert_eq!(settlements.len(), 1);
    settlements.remove(0)
}

async fn anomalies(world: &World, id: WriteId) -> Vec<Anomaly> {
    let write = world.stored(id).await.expect("it is stored");
    write.anomalies.iter().collect()
}

async fn soon(world: &World) {
    world.clock.advance(SOON);
    world.maintain().await;
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
        let world = World::new().await;
        let id = world.write("key", Some(2)).await.expect("written").write;
        let update = json!({ "reported": { "writeKeyResult": { id.to_string(): result } } });
        let report = report(&world, update).await;
        world.writes.settle(&report).await.expect("settled");
        assert_eq!(world.state(id).await, "SENT", "{result}");
        assert_eq!(anomalies(&world, id).await, [Anomaly::UnreadableResult]);
        let again = world.writes.settle(&report).await.expect("settled");
        assert_eq!(again, [Settlement::Ignored(IgnoreReason::Repeated)]);
        soon(&world).await;
        let shadow = world.shadow().expect("a shadow");
        assert!(shadow.results.is_empty(), "{result}");
        assert_eq!(shadow.entries, [id], "the lock may do better");
        answer(&world, id, succeeded_in(json!(2))).await;
        assert_eq!(world.state(id).await, "SUCCEEDED");
        soon(&world).await;
        world.check(&[]).await;
        world.check_at_rest().await;
    }
}

/// A report that was lost is found on the shadow, whatever it says.
#[tokio::test(start_paused = true)]
async fn an_unreadable_result_is_found_by_looking() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    let result = json!({ "reported": { "writeKeyResult": { id.to_string(): "done" } } });
    world.tamper(result).await;
    soon(&world).await;
    assert_eq!(anomalies(&world, id).await, [Anomaly::UnreadableResult]);
    assert!(world.shadow().expect("a shadow").results.is_empty());
}

/// Such results do not fill the shadow: a slot can be written as often as one likes.
#[tokio::test(start_paused = true)]
async fn unreadable_results_do_not_fill_the_shadow() {
    let world = World::new().await;
    for n in 0..120 {
        let id = world.write(&format!("key-{n}"), Some(2)).await;
        let id = id
            .unwrap_or_else(|error| panic!("write {n}: {error}"))
            .write;
        let result = json!({ "reported": { "writeKeyResult": { id.to_string(): {} } } });
        let report = report(&world, result).await;
        world.writes.settle(&report).await.expect("settled");
        soon(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_contradicts_the_first_is_kept_with_the_write() {
    for (first, second, state) in [
        (failed(), succeeded_in(json!(2)), "FAILED"),
        (succeeded_in(json!(2)), failed(), "SUCCEEDED"),
        (succeeded_in(json!(2)), succeeded_in(json!(3)), "SUCCEEDED"),
    ] {
        let world = World::new().await;
        let id = world.write("key", Some(2)).await.expect("written").write;
        answer(&world, id, first).await;
        assert_eq!(world.writes.contradictions(), 0);
        let events = world.stream().await.len();
        for _ in 0..2 {
            answer(&world, id, second.clone()).await;
        }
        assert_eq!(world.state(id).await, state, "the first answer stays");
        let found = anomalies(&world, id).await;
        assert!(found.contains(&Anomaly::ContradictingResult), "{found:?}");
        assert_eq!(world.writes.contradictions(), 1, "it is counted once");
        assert_eq!(world.stream().await.len(), events, "and is no event");
        soon(&world).await;
        assert!(world.shadow().expect("a shadow").results.is_empty());
        // It may come after the first answer was cleared.
        answer(&world, id, second).await;
        soon(&world).await;
        assert!(world.shadow().expect("a shadow").results.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn another_slot_than_was_asked_for_is_recorded_and_kept_with_the_write() {
    let world = World::new().await;
    let id = world.write("key", Some(7)).await.expect("written").write;
    answer(&world, id, succeeded_in(json!(77))).await;
    let write = world.stored(id).await.expect("it is stored");
    assert_eq!(write.slot.index, KeyIndex::new(7).ok());
    assert_eq!(write.reported_index, KeyIndex::new(77).ok());
    assert_eq!(anomalies(&world, id).await, [Anomaly::OtherSlot]);
    let stream = world.stream().await;
    let confirmed = &stream.last().expect("an event").event;
    let LockEvent::KeyWriteConfirmed { slot, .. } = confirmed else {
        panic!("{confirmed:?}")
    };
    assert_eq!(slot.index, KeyIndex::new(77).ok());
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_no_number_or_missing_is_noticed() {
    for (result, expected) in [
        (succeeded_in(json!("4")), Some(Anomaly::UnreadableSlot)),
        (succeeded_in(json!(-1)), Some(Anomaly::UnreadableSlot)),
        (succeeded_in(json!(4.5)), Some(Anomaly::UnreadableSlot)),
        (succeeded(), Some(Anomaly::MissingSlot)),
        (succeeded_in(json!(4)), None),
        (succeeded_in(json!(4.0)), None),
    ] {
        let world = World::new().await;
        let id = world.write("key", Some(4)).await.expect("written").write;
        answer(&world, id, result.clone()).await;
        let expected: Vec<Anomaly> = expected.into_iter().collect();
        assert_eq!(anomalies(&world, id).await, expected, "{result}");
        let write = world.stored(id).await.expect("it is stored");
        assert_eq!(
            (write.state.name(), write.reported_index),
            ("SUCCEEDED", None)
        );
        let held = &world.lock().await.lock.keys;
        let slots: Vec<_> = held.iter().map(|key| key.held.index).collect();
        assert!(slots.contains(&KeyIndex::new(4).ok()), "{slots:?}");
    }
}

/// The slot was the lock's choice: whichever it names is right.
#[tokio::test(start_paused = true)]
async fn a_slot_that_the_lock_chose_is_no_anomaly() {
    let world = World::new().await;
    let id = world.write("key", None).await.expect("written").write;
    answer(&world, id, succeeded_in(json!(9))).await;
    assert_eq!(anomalies(&world, id).await, []);
    let write = world.stored(id).await.expect("it is stored");
    assert_eq!(write.reported_index, KeyIndex::new(9).ok());
}

/// A JSON library that writes `{}` where `null` belongs leaves the entry on the shadow. It goes with the result, by the next
/// write or by maintenance.
#[tokio::test(start_paused = true)]
async fn an_entry_that_the_lock_left_is_taken_off_with_its_result() {
    for next_write in [false, true] {
        let world = World::new().await;
        let id = world.write("key", Some(2)).await.expect("written").write;
        let update = json!({
            "desired": { "writeKey": { id.to_string(): {} } },
            "reported": { "writeKeyResult": { id.to_string(): succeeded_in(json!(2)) } },
        });
        let report = report(&world, update).await;
        world.writes.settle(&report).await.expect("settled");
        assert_eq!(anomalies(&world, id).await, [Anomaly::EntryLeft]);
        assert_eq!(world.shadow().expect("a shadow").entries, [id]);
        match next_write {
            true => drop(world.write("other", Some(3)).await.expect("written")),
            false => soon(&world).await,
        }
        let shadow = world.shadow().expect("a shadow");
        assert!(!shadow.knows(id), "{shadow:?}");
        world.check_at_rest().await;
    }
}

/// Somebody else's entry is seen when the shadow is read, and taken off as by an audit.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_nobody_s_is_taken_off_at_the_next_reading() {
    const STRANGER: WriteId = WriteId::from_u128(0xbad);
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    let entry = json!({ "keyUuid": "a-key", "seq": 1, "expiresAt": 1_790_000_000 });
    let update = json!({ "desired": { "writeKey": { STRANGER.to_string(): entry } } });
    world.tamper(update).await;
    world.clock.advance(SOON);
    let open = world.stored(id).await.expect("it is stored");
    let checked = world.writes.maintain_write(&open).await;
    let MaintenanceOutcome::Repaired(audited) = checked else {
        panic!("{checked:?}")
    };
    assert_eq!(audited.findings, [Finding::UnknownEntry(STRANGER)]);
    assert!(audited.repaired);
    assert_eq!(world.shadow().expect("a shadow").entries, [id]);
    let open = world.stored(id).await.expect("it is stored");
    assert_eq!(
        world.writes.maintain_write(&open).await,
        MaintenanceOutcome::Done
    );
    world.check_at_rest().await;
}
