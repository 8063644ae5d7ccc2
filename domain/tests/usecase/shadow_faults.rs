//! Writes over a faulty shadow, one fault per test.

use keywright_adapters::decorator::{Fault, FaultPlan, Operation};
use keywright_domain::WriteError;
use keywright_domain::model::FailureReason;
use keywright_domain::ports::ShadowError;

use crate::harness::Harness;

fn updates(faults: &[Fault]) -> FaultPlan {
    FaultPlan::default().then(Operation::Update, faults.iter().copied())
}

/// A harness whose shadow exists, so that faults affect the write itself and not the creation of the shadow.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    let first = harness
        .write("first", Some(0))
        .await
        .expect("a first write");
    harness
        .report(first.write, crate::harness::succeeded())
        .await;
    let reconciled = crate::harness::reconcile_all(&harness.writes).await;
    reconciled.expect("the store answers");
    harness
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_changes_nothing() {
    let harness = harness().await;
    let (stream, shadow) = (harness.stream().await, harness.shadow());
    for fault in [Fault::Refuse, Fault::NotSent] {
        harness.faults.set(updates(&[fault]));
        let answer = harness.write("key", Some(2)).await;
        assert!(
            matches!(answer, Err(WriteError::NotUpdated(_))),
            "{answer:?}"
        );
        assert_eq!(
            (harness.stream().await, harness.shadow()),
            (stream.clone(), shadow.clone())
        );
    }
    assert!(
        harness.write("key", Some(2)).await.is_ok(),
        "the lock's queue is free"
    );
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_an_applied_update_is_a_success() {
    let harness = harness().await;
    harness.faults.set(updates(&[Fault::DropAnswer]));
    let written = harness
        .write("key", Some(2))
        .await
        .expect("found on the shadow");
    assert_eq!(harness.state(written.write).await, "SENT");
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_sent_again() {
    let harness = harness().await;
    harness
        .faults
        .set(updates(&[Fault::LoseRequest, Fault::LoseRequest]));
    harness
        .write("key", Some(2))
        .await
        .expect("the second resend arrives");
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_applied_update_is_undecided_while_reads_fail_and_resolves_by_itself() {
    let harness = harness().await;
    let reads_down = [Fault::LoseRequest; 500];
    harness
        .faults
        .set(updates(&[Fault::DropAnswer]).then(Operation::Read, reads_down));
    let answer = harness.write("key", Some(2)).await;
    let Err(WriteError::Undecided(id)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(harness.state(id).await, "PREPARED");
    harness.faults.set(FaultPlan::default());
    harness.recover().await;
    assert_eq!(harness.state(id).await, "SENT");
    let requests = harness
        .stream()
        .await
        .iter()
        .filter(|e| e.write == Some(id))
        .count();
    assert_eq!(requests, 1);
    harness.check(&[(id, answer)]).await;
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn delayed_updates_are_fenced_and_conflict() {
    let harness = harness().await;
    harness.faults.set(updates(&[Fault::Withhold; 3]));
    let answer = harness.write("key", Some(2)).await;
    assert_eq!(
        answer,
        Err(WriteError::NotUpdated(FailureReason::OutcomeUnknown))
    );
    let (stream, shadow) = (harness.stream().await, harness.shadow());
    assert_eq!(
        harness.faults.release().await,
        vec![Err(ShadowError::Conflict); 3]
    );
    assert_eq!((harness.stream().await, harness.shadow()), (stream, shadow));
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_unknown_attempt_is_not_trusted() {
    let harness = harness().await;
    harness
        .faults
        .set(updates(&[Fault::Withhold, Fault::Refuse]));
    let answer = harness.write("key", Some(2)).await;
    assert_eq!(
        answer,
        Err(WriteError::NotUpdated(FailureReason::Throttled))
    );
    assert_eq!(
        harness.faults.release().await,
        [Err(ShadowError::Conflict)],
        "the update was fenced"
    );
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_of_another_client_costs_one_resend() {
    let harness = harness().await;
    let thing = keywright_testkit::samples::thing(keywright_testkit::samples::lock_id(
        crate::harness::LOCK,
    ));
    let name = keywright_shadow::ShadowName::Named("keys".into());
    let body = br#"{"state":{"reported":{}}}"#;
    harness
        .service
        .update(thing.as_str(), &name, body)
        .await
        .expect("an update");
    harness
        .write("key", Some(2))
        .await
        .expect("sent again at the version that was read");
    harness.check_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_time_keeps_the_invariants() {
    for polls in 0..12 {
        let harness = harness().await;
        harness.faults.set(
            updates(&[Fault::DropAnswer]).then(Operation::Read, [Fault::LoseRequest, Fault::Pass]),
        );
        {
            let mut write = std::pin::pin!(harness.write("key", Some(2)));
            for _ in 0..polls {
                let step = std::time::Duration::from_millis(11);
                if tokio::time::timeout(step, write.as_mut()).await.is_ok() {
                    break;
                }
            }
        }
        harness.faults.set(FaultPlan::default());
        harness.recover().await;
        harness.check(&[]).await;
        harness.check_at_rest().await;
    }
}
