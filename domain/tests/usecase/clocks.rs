//! A wall clock that was an hour ahead and is set right: what maintenance was to do is not done an hour late.

use std::time::Duration;

use keywright_adapters::decorator::Fault;
use keywright_domain::model::*;
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::Clock;
use keywright_domain::{RequestOptions, WriteError, WriteReceipt};
use keywright_testkit::samples::{NOW, lock_id, principal, slot};

use crate::world::{LOCK, World, succeeded};

const HOUR: Duration = Duration::from_secs(3600);

/// Longer than `confirm_within` and `clear_within`.
const SOON: Duration = Duration::from_secs(61);

/// The clock is an hour ahead.
async fn world_ahead() -> World {
    let world = World::new().await;
    world.clock.set(NOW.after(HOUR));
    assert!(!world.writes.clock_was_set_back(), "it was set forward");
    world
}

/// The clock is set right, and the service does what it does then.
async fn set_right(world: &World) {
    world.clock.set(NOW);
    assert!(world.writes.clock_was_set_back());
    assert!(!world.writes.clock_was_set_back(), "this is said once");
    let looked = world.writes.reconcile_all(None, 100).await;
    assert_eq!(looked.expect("the store answers").failed, 0);
}

async fn soon(world: &World) {
    world.clock.advance(SOON);
    world.maintain().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_is_found_as_soon_as_by_a_right_clock() {
    let world = world_ahead().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    set_right(&world).await;
    world.report(id, succeeded()).await;
    soon(&world).await;
    assert_eq!(world.state(id).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_sent_in_the_future_counts_as_unconfirmed() {
    let world = world_ahead().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    set_right(&world).await;
    let confirm_within = world.writes.settings().limits.confirm_within;
    let sent = world.stored(id).await.expect("it is stored");
    assert!(sent.is_unconfirmed(world.clock.now(), confirm_within));
    let backlog = world.writes.backlog().await.expect("the store answers");
    assert_eq!(backlog.unconfirmed, 1);
}

#[tokio::test(start_paused = true)]
async fn results_are_cleared_as_soon_as_by_a_right_clock() {
    let world = world_ahead().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    let report = world.report(id, succeeded()).await;
    world.writes.settle(&report).await.expect("settled");
    set_right(&world).await;
    soon(&world).await;
    assert!(world.shadow().expect("a shadow").results.is_empty());
    assert!(world.lock().await.uncleared.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_look_comes_as_soon_as_by_a_right_clock() {
    let world = world_ahead().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    world.withdraw(id).await.expect("withdrawn");
    set_right(&world).await;
    let next_check_at = async || world.stored(id).await.expect("it is stored").next_check_at;
    assert!(next_check_at().await.is_some(), "the lock may be at it");
    world.report(id, succeeded()).await;
    soon(&world).await;
    let late = world.stored(id).await.expect("it is stored");
    assert!(late.is_late(), "{late:?}");
}

/// No start and no step is seen here: the moment alone says that a wrong clock decided it.
#[tokio::test(start_paused = true)]
async fn a_moment_that_lies_further_ahead_than_a_time_to_live_is_due() {
    let world = World::new().await;
    world.clock.set(NOW.after(HOUR * 24 * 365));
    let id = world.write("key", Some(2)).await.expect("written").write;
    world.report(id, succeeded()).await;
    world.clock.set(NOW);
    world.maintain().await;
    assert_eq!(world.state(id).await, "SUCCEEDED");
}

/// An earlier request of the same name is not said to be running for an hour.
#[tokio::test(start_paused = true)]
async fn a_named_request_is_over_when_its_deadline_lies_too_far_ahead() {
    let world = world_ahead().await;
    world.write("other", Some(3)).await.expect("written");
    let down = [Fault::LoseRequest; 60];
    world.trouble_at([&down, &down], [&[], &[]]);
    let ask = async || -> Result<WriteReceipt, WriteError> {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot("key", Some(2)),
        };
        let options = RequestOptions {
            idempotency_key: IdempotencyKey::new("name").ok(),
            deadline: None,
        };
        let writes = &world.writes;
        writes.write_key(&command, &principal(), options).await
    };
    let first = ask().await;
    assert!(matches!(first, Err(WriteError::Undecided(_))), "{first:?}");
    world.clock.set(NOW);
    assert_eq!(ask().await, first);
}
