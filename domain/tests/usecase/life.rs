//! What becomes of a write after its 200.

use std::time::Duration;

use keywright_domain::model::{DeviceReport, ThingName, WriteId};
use keywright_domain::policy::{IgnoreReason, Rejection};
use keywright_domain::{Settlement, WithdrawError, WriteError};
use serde_json::json;

use crate::world::{World, succeeded};

async fn settle(world: &World, report: &DeviceReport) -> Vec<Settlement> {
    world
        .writes
        .settle(report)
        .await
        .expect("the store answers")
}

#[tokio::test(start_paused = true)]
async fn a_report_confirms_the_write_and_leaves_no_delta() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    assert_ne!(world.delta(), json!({}));
    let report = world.report(written.write, succeeded()).await;
    settle(&world, &report).await;
    assert_eq!(
        world.names().await,
        ["LockCreated", "KeyWriteRequested", "KeyWriteConfirmed"]
    );
    assert_eq!(world.delta(), json!({}));
    let again = settle(&world, &report).await;
    assert_eq!(again, [Settlement::Ignored(IgnoreReason::Repeated)]);
    let keys = world.lock().await.lock.keys;
    assert!(
        keys.iter()
            .any(|k| k.held.key.as_str() == "key" && k.held.user.is_none())
    );
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_seen_and_records_no_event() {
    let world = World::new().await;
    let written = world.write("key", None).await.expect("written");
    let report = world
        .report(written.write, json!({ "status": "IN_PROGRESS" }))
        .await;
    settle(&world, &report).await;
    assert_eq!(world.state(written.write).await, "IN_PROGRESS");
    assert_eq!(world.names().await.len(), 2);
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_locks_reason() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    let failed = json!({ "status": "FAILED", "reason": "NoSpace" });
    let report = world.report(written.write, failed).await;
    settle(&world, &report).await;
    assert_eq!(world.state(written.write).await, "FAILED");
    assert_eq!(world.names().await.last(), Some(&"KeyWriteFailed"));
}

#[tokio::test(start_paused = true)]
async fn the_same_open_write_is_not_repeated_and_a_settled_one_is() {
    let world = World::new().await;
    let first = world.write("key", Some(2)).await.expect("written");
    let again = world.write("key", Some(2)).await.expect("nothing new");
    assert_eq!(
        (again.write, again.event, again.version),
        (first.write, None, first.version)
    );
    let report = world.report(first.write, succeeded()).await;
    settle(&world, &report).await;
    let new = world.write("key", Some(2)).await.expect("written again");
    assert!(new.event.is_some() && new.write != first.write);
}

#[tokio::test(start_paused = true)]
async fn a_newer_write_for_the_slot_takes_the_place_of_the_open_one() {
    let world = World::new().await;
    let old = world.write("old", Some(2)).await.expect("written");
    let new = world.write("new", Some(2)).await.expect("written");
    let beside = world.write("beside", None).await.expect("written");
    assert_eq!(world.state(old.write).await, "SUPERSEDED");
    assert_eq!(
        world.shadow().expect("a shadow").entries,
        [new.write, beside.write]
    );
    let report = world.report(new.write, succeeded()).await;
    settle(&world, &report).await;
    let late = world.report(old.write, succeeded()).await;
    settle(&world, &late).await;
    let stored = world.stored(old.write).await.expect("the write");
    assert_eq!(
        stored.state.name(),
        "SUCCEEDED",
        "what the lock did is never hidden"
    );
    let keys = world.lock().await.lock.keys;
    assert!(
        keys.iter().any(|k| k.held.key.as_str() == "new"),
        "the newer key stays in its slot"
    );
    world.check(&[]).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_early_report_settles_the_write_and_its_request() {
    use keywright_adapters::decorator::{Fault, FaultPlan, Operation};
    let world = World::new().await;
    world.write("first", Some(0)).await.expect("written");
    let plan = FaultPlan::default()
        .then(Operation::Update, [Fault::DropAnswer])
        .then(Operation::Read, [Fault::LoseRequest; 20]);
    world.faults.set(plan);
    let writing = world.write("key", Some(2));
    let reporting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let prepared = world.lock().await.prepared().expect("not committed yet").id;
        let report = world.report(prepared, succeeded()).await;
        settle(&world, &report).await;
        prepared
    };
    let (written, id) = tokio::join!(writing, reporting);
    assert_eq!(written.expect("the report proves it").write, id);
    assert_eq!(world.state(id).await, "SUCCEEDED");
    assert_eq!(
        world.names().await[2..],
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

#[tokio::test(start_paused = true)]
async fn reports_of_nobody_append_nothing() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    let before = world.stream().await;
    let mut report = world.report(WriteId::from_u128(404), succeeded()).await;
    assert_eq!(
        settle(&world, &report).await,
        [Settlement::Ignored(IgnoreReason::Contradiction)]
    );
    report.results[0].write = written.write;
    report.thing = ThingName::new("another-thing").expect("a thing name");
    assert_eq!(
        settle(&world, &report).await,
        [Settlement::Ignored(IgnoreReason::WrongThing)]
    );
    assert_eq!(world.stream().await, before);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_write_expires_off_the_shadow_and_a_late_report_is_recorded() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    assert_eq!(
        world.state(written.write).await,
        "SENT",
        "unconfirmed is not failed"
    );
    world.clock.advance(Duration::from_secs(48 * 3600));
    world.maintain().await;
    assert_eq!(world.state(written.write).await, "EXPIRED");
    world.check_at_rest().await;
    let report = world.report(written.write, succeeded()).await;
    settle(&world, &report).await;
    assert_eq!(world.state(written.write).await, "SUCCEEDED");
    world.check(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_nobody_delivered_is_read_before_the_write_expires() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    world.report(written.write, succeeded()).await;
    world.clock.advance(Duration::from_secs(49 * 3600));
    world.maintain().await;
    assert_eq!(world.state(written.write).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn recorded_results_are_cleared_with_the_next_write_or_by_the_sweep() {
    let world = World::new().await;
    for (key, next_write) in [("a", true), ("b", false)] {
        let written = world.write(key, Some(2)).await.expect("written");
        let report = world.report(written.write, succeeded()).await;
        settle(&world, &report).await;
        assert_eq!(world.shadow().expect("a shadow").results.len(), 1);
        if next_write {
            let other = world.write("other", Some(3)).await.expect("written");
            assert!(world.shadow().expect("a shadow").results.is_empty());
            world.withdraw(other.write).await.expect("withdrawn");
        } else {
            world.clock.advance(Duration::from_secs(61));
            world.maintain().await;
            assert!(world.shadow().expect("a shadow").results.is_empty());
        }
        assert!(world.lock().await.uncleared.is_empty());
    }
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_write_is_off_the_shadow_and_a_settled_one_cannot_be_withdrawn() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    let ended = world.withdraw(written.write).await.expect("withdrawn");
    assert_eq!(ended.state.name(), "WITHDRAWN");
    world.check_at_rest().await;
    let again = world.withdraw(written.write).await;
    assert_eq!(again, Ok(ended), "asked again, it is answered as it is");
    let names = world.names().await;
    assert_eq!(names.last(), Some(&"KeyWriteWithdrawn"));
    assert_eq!(names.len(), 3, "and recorded once");
    let settled = world.write("other", Some(3)).await.expect("written").write;
    let report = world.report(settled, succeeded()).await;
    settle(&world, &report).await;
    let late = world.withdraw(settled).await;
    assert!(
        matches!(late, Err(WithdrawError::AlreadyEnded(_))),
        "{late:?}"
    );
    let unknown = world.withdraw(WriteId::from_u128(404)).await;
    assert_eq!(unknown, Err(WithdrawError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn the_seventeenth_open_write_is_refused() {
    let world = World::new().await;
    for index in 0..16 {
        world.write("key", Some(index)).await.expect("written");
    }
    let answer = world.write("key", Some(16)).await;
    assert_eq!(
        answer,
        Err(WriteError::Rejected(Rejection::TooManyOpenWrites))
    );
    world
        .write("other", Some(3))
        .await
        .expect("one that takes a place is no more");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_lock_at_once_all_take_their_turn() {
    let world = World::new().await;
    let write = |n: u64| world.write("key", Some(n));
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
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_success_that_was_never_delivered_is_settled_and_not_superseded() {
    let world = World::new().await;
    let old = world.write("old", Some(2)).await.expect("written");
    world.report(old.write, succeeded()).await;
    let new = world
        .write("new", Some(2))
        .await
        .expect("the shadow has moved, and is read");
    assert_eq!(
        (world.state(old.write).await, world.state(new.write).await),
        ("SUCCEEDED", "SENT")
    );
    assert!(!world.names().await.contains(&"KeyWriteSuperseded"));
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_lost_is_put_back() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    world.delete_shadow().await;
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    assert_eq!(world.shadow().expect("made again").entries, [written.write]);
    world
        .write("other", Some(3))
        .await
        .expect("written on the version that was kept");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_write_is_no_answer_while_an_undecided_one_may_take_its_place() {
    use keywright_adapters::decorator::{Fault, FaultPlan, Operation};
    let world = World::new().await;
    let first = world.write("key-1", Some(2)).await.expect("written");
    let plan = FaultPlan::default().then(Operation::Update, [Fault::DropAnswer]);
    world
        .faults
        .set(plan.then(Operation::Read, [Fault::LoseRequest; 500]));
    let undecided = world.write("key-2", Some(2)).await;
    let Err(WriteError::Undecided(undecided)) = undecided else {
        panic!("{undecided:?}")
    };
    assert_eq!(
        world.write("key-1", Some(2)).await,
        Err(WriteError::Busy {
            undecided: Some(undecided)
        })
    );
    world.faults.set(FaultPlan::default());
    world.recover().await;
    let again = world.write("key-1", Some(2)).await.expect("written again");
    assert!(again.event.is_some() && again.write != first.write);
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_back_is_cleared_again() {
    let world = World::new().await;
    let written = world.write("key", Some(2)).await.expect("written");
    for _ in 0..2 {
        let report = world.report(written.write, succeeded()).await;
        settle(&world, &report).await;
        assert_eq!(world.shadow().expect("a shadow").results.len(), 1);
        world.clock.advance(Duration::from_secs(61));
        world.maintain().await;
        assert!(world.shadow().expect("a shadow").results.is_empty());
    }
    assert_eq!(world.names().await.len(), 3, "it is recorded once");
}

#[tokio::test(start_paused = true)]
async fn what_an_ended_write_leaves_on_the_shadow_is_taken_off() {
    for ending in ["superseded", "withdrawn", "expired"] {
        let world = World::new().await;
        let old = world.write("old", Some(2)).await.expect("written").write;
        let at_it = json!({ "status": "IN_PROGRESS" });
        // The lock says that it is at it, and the report gets lost.
        world.report(old, at_it.clone()).await;
        match ending {
            "superseded" => drop(world.write("new", Some(2)).await.expect("written")),
            "withdrawn" => drop(world.withdraw(old).await.expect("withdrawn")),
            _ => world.clock.advance(Duration::from_secs(49 * 3600)),
        }
        world.maintain().await;
        world.clock.advance(Duration::from_secs(61));
        world.maintain().await;
        let results = world.shadow().expect("a shadow").results;
        assert!(results.is_empty(), "{ending}: {results:?}");
        assert_eq!(world.stored(old).await.expect("stored").next_check_at, None);
        // It says so again: nothing changes, and it is taken off again.
        let report = world.report(old, at_it).await;
        settle(&world, &report).await;
        world.clock.advance(Duration::from_secs(61));
        world.maintain().await;
        assert!(
            world.shadow().expect("a shadow").results.is_empty(),
            "{ending}"
        );
        assert_eq!(world.state(old).await.to_lowercase(), ending);
        world.check(&[]).await;
        world.check_at_rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_that_nobody_delivered_is_found_by_the_last_look() {
    let world = World::new().await;
    let old = world.write("old", Some(2)).await.expect("written").write;
    let new = world.write("new", Some(2)).await.expect("written").write;
    let delivered = world.report(new, succeeded()).await;
    settle(&world, &delivered).await;
    // No other write of the lock is open, so nobody reads the shadow for another reason.
    world.report(old, succeeded()).await;
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    let stored = world.stored(old).await.expect("stored");
    assert!(stored.is_late(), "{:?}", stored.state);
    assert_eq!(stored.state.name(), "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn an_early_look_does_not_spare_the_last_one() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    world.withdraw(id).await.expect("withdrawn");
    world.clock.advance(Duration::from_secs(5));
    world.writes.reconcile_all(None, 9).await.expect("looked");
    // The lock was at it, and says so to nobody who listens.
    world.clock.advance(Duration::from_secs(30));
    world.report(id, succeeded()).await;
    world.clock.advance(Duration::from_secs(30));
    world.maintain().await;
    let stored = world.stored(id).await.expect("stored");
    assert!(stored.is_late(), "{:?}", stored.state);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_shorter_than_confirm_within_is_kept() {
    let mut world = World::new().await;
    let settings = keywright_domain::Settings {
        limits: keywright_domain::policy::Limits {
            time_to_live: Duration::from_secs(5),
            ..keywright_domain::policy::Limits::default()
        },
        ..keywright_domain::Settings::default()
    };
    let writes = keywright_domain::KeyWrites::new(world.ports.clone(), settings);
    world.writes = std::sync::Arc::new(writes.expect("valid settings"));
    let id = world.write("key", Some(2)).await.expect("written").write;
    world.clock.advance(Duration::from_secs(6));
    world.maintain().await;
    assert_eq!(world.state(id).await, "EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_lost_while_another_write_was_undecided_is_put_back() {
    use keywright_adapters::decorator::Fault;
    let world = World::new().await;
    let first = world.write("key-1", Some(2)).await.expect("written").write;
    world.delete_shadow().await;
    let down = [Fault::LoseRequest; 500];
    world.trouble_at([&down, &down], [&[], &[]]);
    let other = world.write("key-2", Some(3)).await;
    assert!(matches!(other, Err(WriteError::Undecided(_))), "{other:?}");
    world.no_trouble();
    world.clock.advance(Duration::from_secs(61));
    world.maintain().await;
    world.recover().await;
    world.clock.advance(Duration::from_secs(11));
    world.maintain().await;
    assert_eq!(world.shadow().expect("a shadow").entries, [first]);
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_at_start_up_does_not_spare_the_one_at_confirm_within() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    world.clock.advance(Duration::from_secs(1));
    world.writes.reconcile_all(None, 9).await.expect("looked");
    world.report(id, succeeded()).await;
    world.clock.advance(Duration::from_secs(60));
    world.maintain().await;
    assert_eq!(world.state(id).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_gets_lost_late_is_found_when_the_write_is_twice_as_old() {
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    for age in [61, 122, 244, 488] {
        world
            .clock
            .advance(Duration::from_secs(if age == 61 { 61 } else { age / 2 }));
        world.maintain().await;
        assert_eq!(world.state(id).await, "SENT", "after {age} s");
    }
    // The lock was offline for a quarter of an hour, and nobody heard what it said then.
    world.clock.advance(Duration::from_secs(400));
    world.report(id, succeeded()).await;
    world.clock.advance(Duration::from_secs(87));
    world.maintain().await;
    assert_eq!(
        world.state(id).await,
        "SENT",
        "it is not looked at all the time"
    );
    world.clock.advance(Duration::from_secs(2));
    world.maintain().await;
    assert_eq!(world.state(id).await, "SUCCEEDED", "after 977 s");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_whose_own_save_was_not_answered_is_one() {
    use keywright_adapters::decorator::Fault;
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    for _ in 0..2 {
        world.trouble_at([&[], &[]], [&[Fault::Pass, Fault::DropAnswer], &[]]);
        let withdrawn = world.withdraw(id).await.expect("withdrawn");
        assert_eq!(
            withdrawn.state.name(),
            "WITHDRAWN",
            "and again, when it is asked again"
        );
    }
    let names = world.names().await;
    assert_eq!(
        names.iter().filter(|n| **n == "KeyWriteWithdrawn").count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_took_the_entry_off_is_not_called_a_failure() {
    use keywright_adapters::decorator::Fault;
    let world = World::new().await;
    let id = world.write("key", Some(2)).await.expect("written").write;
    // The entry is taken off, the save fails, and then the shadow refuses to be read.
    let saves = [Fault::Pass, Fault::NotSent, Fault::NotSent];
    world.trouble_at([&[], &[Fault::Pass, Fault::Refuse]], [&saves, &[]]);
    let withdrawn = world.withdraw(id).await;
    assert!(withdrawn.is_ok(), "{withdrawn:?}");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn one_result_that_cannot_be_settled_does_not_hold_up_the_others() {
    use keywright_adapters::decorator::Fault;
    let world = World::new().await;
    let one = world.write("key-1", Some(1)).await.expect("written").write;
    let two = world.write("key-2", Some(2)).await.expect("written").write;
    world.report(one, succeeded()).await;
    let mut report = world.report(two, succeeded()).await;
    let mut first = report.results[0].clone();
    first.write = one;
    report.results.insert(0, first);
    world.trouble_at([&[], &[]], [&[Fault::NotSent], &[]]);
    assert!(
        world.writes.settle(&report).await.is_err(),
        "it has to come again"
    );
    assert_eq!(world.state(one).await, "SENT");
    assert_eq!(world.state(two).await, "SUCCEEDED");
    settle(&world, &report).await;
    assert_eq!(world.state(one).await, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn contradictions_are_counted() {
    let world = World::new().await;
    let report = world.report(WriteId::from_u128(404), succeeded()).await;
    settle(&world, &report).await;
    assert_eq!(world.writes.contradictions(), 1);
}
