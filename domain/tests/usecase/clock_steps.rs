//! A wall clock that was an hour ahead and is corrected: maintenance is not delayed by an hour.

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::*;
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::Clock;
use keywright_domain::{RequestOptions, WriteError, WriteReceipt};
use keywright_testkit::samples::{NOW, lock_id, principal, slot};

use crate::harness::{Faults, Harness, LOCK, reconcile_all, succeeded};

const HOUR: Duration = Duration::from_secs(3600);

/// Longer than `confirm_within` and `clear_within`.
const SOON: Duration = Duration::from_secs(61);

/// A harness whose clock is an hour ahead.
async fn harness_ahead() -> Harness {
    let harness = Harness::new().await;
    harness.clock.set(NOW.after(HOUR));
    assert!(!harness.writes.clock_was_set_back(), "it was set forward");
    harness
}

/// Corrects the clock, and reacts as the service does.
async fn correct_clock(harness: &Harness) {
    harness.clock.set(NOW);
    assert!(harness.writes.clock_was_set_back());
    assert!(
        !harness.writes.clock_was_set_back(),
        "a step is detected once"
    );
    assert_eq!(reconcile_all(&harness.writes).await, Ok(0));
}

async fn soon(harness: &Harness) {
    harness.clock.advance(SOON);
    harness.maintain().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_is_found_without_delay() {
    let harness = harness_ahead().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    correct_clock(&harness).await;
    harness.report(id, succeeded()).await;
    soon(&harness).await;
    assert_eq!(harness.state(id).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_write_sent_in_the_future_counts_as_unconfirmed() {
    let harness = harness_ahead().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    correct_clock(&harness).await;
    let confirm_within = harness.writes.settings().limits.confirm_within;
    let sent = harness.stored(id).await.expect("a stored write");
    assert!(sent.is_unconfirmed(harness.clock.now(), confirm_within));
    let backlog = harness.writes.backlog().await.expect("the store answers");
    assert_eq!(backlog.unconfirmed, 1);
}

#[tokio::test(start_paused = true)]
async fn results_are_cleared_without_delay() {
    let harness = harness_ahead().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let report = harness.report(id, succeeded()).await;
    harness.settle(&report).await;
    correct_clock(&harness).await;
    soon(&harness).await;
    assert!(harness.shadow().expect("a shadow").results.is_empty());
    assert!(harness.lock().await.uncleared.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_final_check_runs_without_delay() {
    let harness = harness_ahead().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    harness.withdraw(id).await.expect("withdrawn");
    correct_clock(&harness).await;
    let next_check_at = async || {
        harness
            .stored(id)
            .await
            .expect("a stored write")
            .next_check_at
    };
    assert!(
        next_check_at().await.is_some(),
        "the lock may be executing the write"
    );
    harness.report(id, succeeded()).await;
    soon(&harness).await;
    let late = harness.stored(id).await.expect("a stored write");
    assert!(late.is_late(), "{late:?}");
}

/// The process detects no step of the clock here. The time of the next check alone shows that a wrong clock scheduled it.
#[tokio::test(start_paused = true)]
async fn a_check_scheduled_later_than_any_rule_allows_is_due() {
    let harness = Harness::new().await;
    harness.clock.set(NOW.after(HOUR * 24 * 365));
    let id = harness.write("key", Some(2)).await.expect("written").write;
    harness.report(id, succeeded()).await;
    harness.clock.set(NOW);
    harness.maintain().await;
    assert_eq!(harness.state(id).await, "SUCCEEDED");
}

/// An earlier request with the same key does not count as running for an hour.
#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_deadline_is_too_far_ahead_is_not_running() {
    let harness = harness_ahead().await;
    harness.write("other", Some(3)).await.expect("written");
    let down = [Fault::LoseRequest; 60];
    harness.inject(Faults {
        update: &down,
        read: &down,
        ..Faults::default()
    });
    let write = async || -> Result<WriteReceipt, WriteError> {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot("key", Some(2)),
        };
        let key = IdempotencyKey::new("request-1").ok();
        let options = RequestOptions::default().with_idempotency_key(key);
        let writes = &harness.writes;
        writes.write_key(&command, &principal(), options).await
    };
    let first = write().await;
    assert!(matches!(first, Err(WriteError::Undecided(_))), "{first:?}");
    harness.clock.set(NOW);
    assert_eq!(write().await, first);
}
