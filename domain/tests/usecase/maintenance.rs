//! Maintenance: expiry, lost reports, lost entries, and the clearing of results.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::{KeyWrites, Settings, WriteError};
use serde_json::json;

use crate::harness::{Faults, Harness, reconcile_all, succeeded};

#[tokio::test(start_paused = true)]
async fn an_unsettled_write_expires_and_its_late_report_is_recorded() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    assert_eq!(
        harness.state(written.write).await,
        "SENT",
        "an unconfirmed write has not failed"
    );
    harness.clock.advance(Duration::from_secs(48 * 3600));
    harness.maintain().await;
    assert_eq!(harness.state(written.write).await, "EXPIRED");
    harness.check_at_rest().await;
    let report = harness.report(written.write, succeeded()).await;
    harness.settle(&report).await;
    assert_eq!(harness.state(written.write).await, "SUCCEEDED");
    harness.check(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_is_found_before_the_write_expires() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    harness.report(written.write, succeeded()).await;
    harness.clock.advance(Duration::from_secs(49 * 3600));
    harness.maintain().await;
    assert_eq!(harness.state(written.write).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn recorded_results_are_cleared_by_the_next_write_or_by_maintenance() {
    let harness = Harness::new().await;
    for (key, next_write) in [("a", true), ("b", false)] {
        let written = harness.write(key, Some(2)).await.expect("written");
        let report = harness.report(written.write, succeeded()).await;
        harness.settle(&report).await;
        assert_eq!(harness.shadow().expect("a shadow").results.len(), 1);
        if next_write {
            let other = harness.write("other", Some(3)).await.expect("written");
            assert!(harness.shadow().expect("a shadow").results.is_empty());
            harness.withdraw(other.write).await.expect("withdrawn");
        } else {
            harness.clock.advance(Duration::from_secs(61));
            harness.maintain().await;
            assert!(harness.shadow().expect("a shadow").results.is_empty());
        }
        assert!(harness.lock().await.uncleared.is_empty());
    }
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_entry_is_restored() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    harness.delete_shadow().await;
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    assert_eq!(harness.shadow().expect("a shadow").entries, [written.write]);
    harness
        .write("other", Some(3))
        .await
        .expect("written at the stored version");
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_result_is_cleared_again() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    for _ in 0..2 {
        let report = harness.report(written.write, succeeded()).await;
        harness.settle(&report).await;
        assert_eq!(harness.shadow().expect("a shadow").results.len(), 1);
        harness.clock.advance(Duration::from_secs(61));
        harness.maintain().await;
        assert!(harness.shadow().expect("a shadow").results.is_empty());
    }
    assert_eq!(
        harness.event_names().await.len(),
        3,
        "the result is recorded once"
    );
}

#[tokio::test(start_paused = true)]
async fn the_progress_of_an_ended_write_is_cleared() {
    for ending in ["superseded", "withdrawn", "expired"] {
        let harness = Harness::new().await;
        let old = harness.write("old", Some(2)).await.expect("written").write;
        let in_progress = json!({ "status": "IN_PROGRESS" });
        // The lock reports its progress, and the report is lost.
        harness.report(old, in_progress.clone()).await;
        match ending {
            "superseded" => drop(harness.write("new", Some(2)).await.expect("written")),
            "withdrawn" => drop(harness.withdraw(old).await.expect("withdrawn")),
            _ => harness.clock.advance(Duration::from_secs(49 * 3600)),
        }
        harness.maintain().await;
        harness.clock.advance(Duration::from_secs(61));
        harness.maintain().await;
        let results = harness.shadow().expect("a shadow").results;
        assert!(results.is_empty(), "{ending}: {results:?}");
        assert_eq!(
            harness.stored(old).await.expect("stored").next_check_at,
            None
        );
        // A repeated report changes nothing and is cleared again.
        let report = harness.report(old, in_progress).await;
        harness.settle(&report).await;
        harness.clock.advance(Duration::from_secs(61));
        harness.maintain().await;
        assert!(
            harness.shadow().expect("a shadow").results.is_empty(),
            "{ending}"
        );
        assert_eq!(harness.state(old).await.to_lowercase(), ending);
        harness.check(&[]).await;
        harness.check_at_rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_final_check_finds_a_late_result_with_a_lost_report() {
    let harness = Harness::new().await;
    let old = harness.write("old", Some(2)).await.expect("written").write;
    let new = harness.write("new", Some(2)).await.expect("written").write;
    let delivered = harness.report(new, succeeded()).await;
    harness.settle(&delivered).await;
    // No other write of the lock is open, so only the final check reads the shadow.
    harness.report(old, succeeded()).await;
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    let stored = harness.stored(old).await.expect("stored");
    assert!(stored.is_late(), "{:?}", stored.state);
    assert_eq!(stored.state.name(), "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn an_early_reconciliation_does_not_replace_the_final_check() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    harness.withdraw(id).await.expect("withdrawn");
    harness.clock.advance(Duration::from_secs(5));
    reconcile_all(&harness.writes).await.expect("reconciled");
    // The lock was executing the write, and its report is lost.
    harness.clock.advance(Duration::from_secs(30));
    harness.report(id, succeeded()).await;
    harness.clock.advance(Duration::from_secs(30));
    harness.maintain().await;
    let stored = harness.stored(id).await.expect("stored");
    assert!(stored.is_late(), "{:?}", stored.state);
}

#[tokio::test(start_paused = true)]
async fn expires_after_a_time_to_live_shorter_than_confirm_within() {
    let mut harness = Harness::new().await;
    let mut settings = Settings::default();
    settings.limits.time_to_live = Duration::from_secs(5);
    let writes = KeyWrites::new(harness.ports.clone(), settings);
    harness.writes = Arc::new(writes.expect("valid settings"));
    let id = harness.write("key", Some(2)).await.expect("written").write;
    harness.clock.advance(Duration::from_secs(6));
    harness.maintain().await;
    assert_eq!(harness.state(id).await, "EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn an_entry_lost_during_an_undecided_write_is_restored() {
    let harness = Harness::new().await;
    let first = harness
        .write("key-1", Some(2))
        .await
        .expect("written")
        .write;
    harness.delete_shadow().await;
    let down = [Fault::LoseRequest; 500];
    harness.inject(Faults {
        update: &down,
        read: &down,
        ..Faults::default()
    });
    let other = harness.write("key-2", Some(3)).await;
    assert!(matches!(other, Err(WriteError::Undecided(_))), "{other:?}");
    harness.end_faults();
    harness.clock.advance(Duration::from_secs(61));
    harness.maintain().await;
    harness.recover().await;
    harness.clock.advance(Duration::from_secs(11));
    harness.maintain().await;
    assert_eq!(harness.shadow().expect("a shadow").entries, [first]);
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_reconciliation_at_start_up_does_not_replace_the_check_at_confirm_within() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    harness.clock.advance(Duration::from_secs(1));
    reconcile_all(&harness.writes).await.expect("reconciled");
    harness.report(id, succeeded()).await;
    harness.clock.advance(Duration::from_secs(60));
    harness.maintain().await;
    assert_eq!(harness.state(id).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_lost_late_report_is_found_when_the_write_is_twice_as_old() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    for age in [61, 122, 244, 488] {
        harness
            .clock
            .advance(Duration::from_secs(if age == 61 { 61 } else { age / 2 }));
        harness.maintain().await;
        assert_eq!(harness.state(id).await, "SENT", "after {age} s");
    }
    // The lock was offline for a quarter of an hour, and its report is lost.
    harness.clock.advance(Duration::from_secs(400));
    harness.report(id, succeeded()).await;
    harness.clock.advance(Duration::from_secs(87));
    harness.maintain().await;
    assert_eq!(
        harness.state(id).await,
        "SENT",
        "the next check is not due yet"
    );
    harness.clock.advance(Duration::from_secs(2));
    harness.maintain().await;
    assert_eq!(harness.state(id).await, "SUCCEEDED", "after 977 s");
}
