//! A write over a shadow that fails, by name.

use keywright_adapters::decorator::{Fault, FaultPlan, Operation};
use keywright_domain::WriteError;
use keywright_domain::model::FailureReason;
use keywright_domain::ports::ShadowError;

use crate::world::World;

fn updates(faults: &[Fault]) -> FaultPlan {
    FaultPlan::default().then(Operation::Update, faults.iter().copied())
}

/// A world whose shadow exists already, so that faults hit the write itself.
async fn world() -> World {
    let world = World::new().await;
    let first = world.write("first", Some(0)).await.expect("a first write");
    world.report(first.write, crate::world::succeeded()).await;
    world
        .writes
        .reconcile_all(None, 9)
        .await
        .expect("the store answers");
    world
}

#[tokio::test(start_paused = true)]
async fn refused_leaves_nothing_anywhere() {
    let world = world().await;
    let (stream, shadow) = (world.stream().await, world.shadow());
    for fault in [Fault::Refuse, Fault::NotSent] {
        world.faults.set(updates(&[fault]));
        let answer = world.write("key", Some(2)).await;
        assert!(
            matches!(answer, Err(WriteError::NotUpdated(_))),
            "{answer:?}"
        );
        assert_eq!(
            (world.stream().await, world.shadow()),
            (stream.clone(), shadow.clone())
        );
    }
    assert!(
        world.write("key", Some(2)).await.is_ok(),
        "the turn is free"
    );
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn applied_and_the_answer_dropped_is_a_success() {
    let world = world().await;
    world.faults.set(updates(&[Fault::DropAnswer]));
    let written = world
        .write("key", Some(2))
        .await
        .expect("found on the shadow");
    assert_eq!(world.state(written.write).await, "SENT");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_sent_again() {
    let world = world().await;
    world
        .faults
        .set(updates(&[Fault::LoseRequest, Fault::LoseRequest]));
    world
        .write("key", Some(2))
        .await
        .expect("the second resend arrives");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn applied_with_reads_down_is_undecided_and_resolves_by_itself() {
    let world = world().await;
    let reads_down = [Fault::LoseRequest; 500];
    world
        .faults
        .set(updates(&[Fault::DropAnswer]).then(Operation::Read, reads_down));
    let answer = world.write("key", Some(2)).await;
    let Err(WriteError::Undecided(id)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(world.state(id).await, "PREPARED");
    world.faults.set(FaultPlan::default());
    world.recover().await;
    assert_eq!(world.state(id).await, "SENT");
    let requests = world
        .stream()
        .await
        .iter()
        .filter(|e| e.write == Some(id))
        .count();
    assert_eq!(requests, 1);
    world.check(&[(id, answer)]).await;
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn withheld_is_fenced_and_the_late_copies_conflict() {
    let world = world().await;
    world.faults.set(updates(&[Fault::Withhold; 3]));
    let answer = world.write("key", Some(2)).await;
    assert_eq!(
        answer,
        Err(WriteError::NotUpdated(FailureReason::OutcomeUnknown))
    );
    let (stream, shadow) = (world.stream().await, world.shadow());
    assert_eq!(
        world.faults.release().await,
        vec![Err(ShadowError::Conflict); 3]
    );
    assert_eq!((world.stream().await, world.shadow()), (stream, shadow));
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    let world = world().await;
    world.faults.set(updates(&[Fault::Withhold, Fault::Refuse]));
    let answer = world.write("key", Some(2)).await;
    assert_eq!(
        answer,
        Err(WriteError::NotUpdated(FailureReason::Throttled))
    );
    assert_eq!(
        world.faults.release().await,
        [Err(ShadowError::Conflict)],
        "it was fenced first"
    );
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_writer_costs_one_more_round() {
    let world = world().await;
    let thing =
        keywright_testkit::samples::thing(keywright_testkit::samples::lock_id(crate::world::LOCK));
    let name = keywright_shadow::ShadowName::Named("keys".into());
    let body = br#"{"state":{"reported":{}}}"#;
    world
        .service
        .update(thing.as_str(), &name, body)
        .await
        .expect("an update");
    world
        .write("key", Some(2))
        .await
        .expect("sent again on the version that was read");
    world.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_at_any_moment_leaves_the_books_balanced() {
    for polls in 0..12 {
        let world = world().await;
        world.faults.set(
            updates(&[Fault::DropAnswer]).then(Operation::Read, [Fault::LoseRequest, Fault::Pass]),
        );
        {
            let mut write = std::pin::pin!(world.write("key", Some(2)));
            for _ in 0..polls {
                let step = std::time::Duration::from_millis(11);
                if tokio::time::timeout(step, write.as_mut()).await.is_ok() {
                    break;
                }
            }
        }
        world.faults.set(FaultPlan::default());
        world.recover().await;
        world.check(&[]).await;
        world.check_at_rest().await;
    }
}
