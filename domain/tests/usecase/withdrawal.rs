//! Withdrawal of writes.

use keywright_adapters::decorator::Fault;
use keywright_domain::model::{Identity, Operator, OperatorRole, Principal, SubjectId, WriteId};
use keywright_domain::policy::Rejection;
use keywright_domain::{AuditError, RequestOptions, WithdrawError};
use keywright_testkit::samples::lock_id;

use crate::harness::{Faults, Harness, LOCK, succeeded};

#[tokio::test(start_paused = true)]
async fn withdrawal_removes_an_open_write_and_rejects_a_settled_one() {
    let harness = Harness::new().await;
    let written = harness.write("key", Some(2)).await.expect("written");
    let ended = harness.withdraw(written.write).await.expect("withdrawn");
    assert_eq!(ended.state.name(), "WITHDRAWN");
    harness.check_at_rest().await;
    let again = harness.withdraw(written.write).await;
    assert_eq!(again, Ok(ended), "a repeated withdrawal returns the write");
    let names = harness.event_names().await;
    assert_eq!(names.last(), Some(&"KeyWriteWithdrawn"));
    assert_eq!(names.len(), 3, "the withdrawal is recorded once");
    let settled = harness
        .write("other", Some(3))
        .await
        .expect("written")
        .write;
    let report = harness.report(settled, succeeded()).await;
    harness.settle(&report).await;
    let late = harness.withdraw(settled).await;
    assert!(
        matches!(late, Err(WithdrawError::AlreadyEnded(_))),
        "{late:?}"
    );
    let unknown = harness.withdraw(WriteId::from_u128(404)).await;
    assert_eq!(unknown, Err(WithdrawError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn an_operator_withdraws_writes_and_a_viewer_only_reads_them() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    let (lock, writes) = (lock_id(LOCK), &harness.writes);
    let of_role = |role| {
        let name = SubjectId::new("ann").expect("a name");
        Principal::of(Identity::Operator(Operator { name, role }))
    };
    let withdraw = |principal| async move {
        let options = RequestOptions::default();
        writes.withdraw(lock, id, &principal, options).await
    };
    let viewer = of_role(OperatorRole::Viewer);
    assert!(writes.read_write(lock, id, &viewer).await.is_ok());
    let refused = AuditError::Rejected(Rejection::Forbidden);
    assert!(writes.audit_as(lock, &viewer, false).await.is_ok());
    assert_eq!(writes.audit_as(lock, &viewer, true).await, Err(refused));
    let refused = WithdrawError::Rejected(Rejection::Forbidden);
    assert_eq!(withdraw(viewer).await, Err(refused));
    let ended = withdraw(of_role(OperatorRole::Operator)).await;
    assert_eq!(ended.expect("withdrawn").state.name(), "WITHDRAWN");
    let stream = harness.stream().await;
    let cause = stream.last().and_then(|event| event.cause.clone());
    assert_eq!(cause.expect("a cause").requested_by, "operator:ann");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_succeeds_when_the_answer_to_its_save_is_lost() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    for _ in 0..2 {
        harness.inject(Faults {
            save: &[Fault::Pass, Fault::DropAnswer],
            ..Faults::default()
        });
        let withdrawn = harness.withdraw(id).await.expect("withdrawn");
        assert_eq!(
            withdrawn.state.name(),
            "WITHDRAWN",
            "also when the withdrawal is repeated"
        );
    }
    let names = harness.event_names().await;
    assert_eq!(
        names.iter().filter(|n| **n == "KeyWriteWithdrawn").count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_removed_the_entry_does_not_fail() {
    let harness = Harness::new().await;
    let id = harness.write("key", Some(2)).await.expect("written").write;
    // The entry is removed, the save fails, and then a read of the shadow is refused.
    let saves = [Fault::Pass, Fault::NotSent, Fault::NotSent];
    harness.inject(Faults {
        read: &[Fault::Pass, Fault::Refuse],
        save: &saves,
        ..Faults::default()
    });
    let withdrawn = harness.withdraw(id).await;
    assert!(withdrawn.is_ok(), "{withdrawn:?}");
    harness.check_at_rest().await;
}
