//! The admission rules, and the fold of a lock, on constructed locks.

use keywright_domain::model::{
    HeldKey, Identity, KeySlot, Lock, LockEvent, LockSnapshot, Principal, RecordedEvent, Write,
    WriteState, *,
};
use keywright_domain::policy::{
    self, AccessPolicy, Limits, OwnerAccess, Reach, Rejection, WriteDecision, WriteKey,
    decide_write,
};
use keywright_testkit::samples::{
    NOW, created, every_state, in_state, lock_id, prepared, principal, slot,
};
use proptest::prelude::*;

fn snapshot() -> LockSnapshot {
    LockSnapshot {
        lock: Lock::fold(&[created(lock_id(1))]).expect("a stream"),
        revision: Revision(1),
        shadow_version: Some(ShadowVersion(1)),
        unfinished: Vec::new(),
        uncleared: Vec::new(),
    }
}

/// A lock with an open write for each of these slots.
fn with_open(slots: &[KeySlot]) -> LockSnapshot {
    let mut snapshot = snapshot();
    for (n, slot) in slots.iter().enumerate() {
        let (write, _) = prepared(&snapshot, n as u128 + 1, slot.clone());
        snapshot.revision = snapshot.revision.next();
        snapshot.unfinished.push(Write {
            state: WriteState::Sent,
            ..write
        });
    }
    snapshot
}

fn decide(snapshot: &LockSnapshot, slot: KeySlot) -> Result<WriteDecision, Rejection> {
    let command = WriteKey {
        lock: lock_id(1),
        slot,
    };
    decide_write(
        Some(snapshot),
        &command,
        &principal(),
        &OwnerAccess,
        &Limits::default(),
        NOW,
    )
}

fn decide_as(principal: Principal) -> Result<WriteDecision, Rejection> {
    let command = WriteKey {
        lock: lock_id(1),
        slot: slot("key", None),
    };
    let mut snapshot = snapshot();
    snapshot.lock.organization = OrganizationId::new("owners").ok();
    let held = HeldKey {
        key: KeyUuid::new("k").expect("a key"),
        index: None,
        user: UserId::new("holder").ok(),
    };
    snapshot
        .lock
        .apply(&event(2, None, LockEvent::KeyAdded(held)))
        .expect("the next event");
    decide_write(
        Some(&snapshot),
        &command,
        &principal,
        &OwnerAccess,
        &Limits::default(),
        NOW,
    )
}

fn event(version: u64, write: Option<u128>, event: LockEvent) -> RecordedEvent {
    let write = write.map(WriteId::from_u128);
    RecordedEvent {
        version: LockVersion(version),
        write,
        cause: None,
        event,
        ..created(lock_id(1))
    }
}

#[test]
fn rule_1_the_principal_may_access_the_lock() {
    let user = |id| Identity::User(UserId::new(id).expect("a user id"));
    let subject = |id| Identity::Subject(SubjectId::new(id).expect("a subject id"));
    let organization =
        |id| Identity::Organization(OrganizationId::new(id).expect("an organization"));
    for (identity, allowed) in [
        (user("the-owner"), true),
        (user("holder"), true),
        (user("stranger"), false),
        // A user and an organization with the same id are different identities.
        (user("owners"), false),
        (organization("owners"), true),
        (organization("others"), false),
        (organization("the-owner"), false),
        (Identity::EveryOrganization, true),
        (subject("the-owner"), false),
    ] {
        let answer = decide_as(Principal::of(identity.clone()));
        assert_eq!(answer.is_ok(), allowed, "{identity:?}");
        let both = Principal::of_both(user("stranger"), identity);
        assert_eq!(
            decide_as(both).is_ok(),
            allowed,
            "one of two identities is enough"
        );
    }
}

#[test]
fn operators_read_all_locks_write_to_none_and_withdraw_by_their_role() {
    let lock = snapshot().lock;
    for (role, may_withdraw) in [
        (OperatorRole::Viewer, false),
        (OperatorRole::Operator, true),
    ] {
        let operator = Principal::of(Identity::Operator(Operator {
            name: SubjectId::new("ann").expect("a name"),
            role,
        }));
        assert!(OwnerAccess.may_access(&operator, &lock));
        assert!(!OwnerAccess.may_write(&operator, &lock));
        assert_eq!(OwnerAccess.may_withdraw(&operator, &lock), may_withdraw);
        assert_eq!(decide_as(operator), Err(Rejection::Forbidden));
    }
}

#[test]
fn a_key_can_reach_a_lock_only_before_its_write_expires_unless_the_lock_has_it() {
    let (write, _) = prepared(&snapshot(), 1, slot("key", Some(0)));
    let (before, expiry) = (write.prepared_at, write.expires_at);
    for state in every_state().into_iter().chain([write.state.clone()]) {
        let write = in_state(&write, state);
        let reaches = [before, expiry].map(|now| policy::reach(&write, now).0);
        let expected = match write.state.name() {
            "PREPARED" | "SENT" | "SUPERSEDED" | "WITHDRAWN" => [Reach::Until(expiry), Reach::No],
            "IN_PROGRESS" | "SUCCEEDED" => [Reach::Yes, Reach::Yes],
            _ => [Reach::No, Reach::No],
        };
        assert_eq!(reaches, expected, "{:?}", write.state);
    }
}

#[test]
fn the_steps_of_a_write_end_with_its_state() {
    let (write, _) = prepared(&snapshot(), 1, slot("key", Some(0)));
    assert_eq!(write.steps(), [("PREPARED", Some(write.prepared_at))]);
    let requested = Requested {
        version: LockVersion(2),
        time: write.prepared_at.after(std::time::Duration::from_millis(5)),
    };
    for state in every_state() {
        let mut write = in_state(&write, state);
        write.requested = Some(requested);
        let steps = write.steps();
        assert_eq!(steps[1], ("SENT", Some(requested.time)));
        let last = steps.last().expect("a step");
        assert_eq!(last.0, write.state.name());
        assert_eq!(
            steps.len(),
            if write.is_open() && last.0 == "SENT" {
                2
            } else {
                3
            }
        );
    }
}

#[test]
fn rule_2_the_lock_has_a_thing() {
    let mut snapshot = snapshot();
    snapshot.lock.thing = None;
    assert_eq!(
        decide(&snapshot, slot("key", None)),
        Err(Rejection::NotProvisioned)
    );
}

#[test]
fn rule_3_the_index_is_below_a_known_capacity() {
    let mut snapshot = snapshot();
    assert!(decide(&snapshot, slot("key", Some(99))).is_ok());
    let beyond = Err(Rejection::IndexBeyondCapacity { capacity: 100 });
    assert_eq!(decide(&snapshot, slot("key", Some(100))), beyond);
    snapshot.lock.key_capacity = None;
    assert!(decide(&snapshot, slot("key", Some(100))).is_ok());
}

#[test]
fn rule_4_the_same_open_write_is_not_repeated() {
    let open = with_open(&[slot("key", Some(2)), slot("key", None)]);
    let same = |id| Ok(WriteDecision::AlreadyOpen(WriteId::from_u128(id)));
    assert_eq!(decide(&open, slot("key", Some(2))), same(1));
    assert_eq!(decide(&open, slot("key", None)), same(2));
    for other in [
        slot("key", Some(3)),
        slot("other", Some(2)),
        slot("other", None),
    ] {
        assert!(matches!(decide(&open, other), Ok(WriteDecision::Write(_))));
    }
    let mut overdue = open;
    overdue.unfinished[0].expires_at = NOW;
    let answer = decide(&overdue, slot("key", Some(2)));
    assert!(
        matches!(answer, Ok(WriteDecision::Write(_))),
        "the lock skips an expired write"
    );
}

#[test]
fn rule_5_a_write_supersedes_the_open_writes_of_its_index() {
    let open = with_open(&[slot("a", Some(2)), slot("b", Some(3)), slot("c", None)]);
    let superseded = |slot| match decide(&open, slot) {
        Ok(WriteDecision::Write(permitted)) => permitted.supersedes,
        other => panic!("{other:?}"),
    };
    assert_eq!(superseded(slot("new", Some(2))), [WriteId::from_u128(1)]);
    assert_eq!(superseded(slot("new", Some(9))), []);
    assert_eq!(superseded(slot("new", None)), []);
}

#[test]
fn rule_6_limits_the_number_and_size_of_open_writes() {
    let slots = |n: u64| (0..n).map(|i| slot("key", Some(i))).collect::<Vec<_>>();
    assert!(decide(&with_open(&slots(15)), slot("key", Some(50))).is_ok());
    let refused = Err(Rejection::TooManyOpenWrites);
    assert_eq!(
        decide(&with_open(&slots(16)), slot("key", Some(50))),
        refused
    );
    let long = "\"".repeat(128);
    let large = (0..12).map(|i| slot(&long, Some(i))).collect::<Vec<_>>();
    assert_eq!(
        decide(&with_open(&large), slot(&long, Some(50))),
        refused,
        "12 writes of 558 bytes leave no space"
    );
    assert!(decide(&with_open(&large[..10]), slot(&long, Some(50))).is_ok());
}

#[test]
fn a_late_confirmation_does_not_replace_a_newer_key() {
    let slot_2 = |key: &str| slot(key, Some(2));
    let requested = |version, write, key| {
        event(
            version,
            Some(write),
            LockEvent::KeyWriteRequested(slot_2(key)),
        )
    };
    let confirmed = |version, write, key, late| {
        event(
            version,
            Some(write),
            LockEvent::KeyWriteConfirmed {
                slot: slot_2(key),
                late,
            },
        )
    };
    let superseded = event(3, Some(1), LockEvent::KeyWriteSuperseded(slot_2("old")));
    let stream = [
        created(lock_id(1)),
        requested(2, 1, "old"),
        superseded,
        requested(4, 2, "new"),
        confirmed(5, 2, "new", false),
        confirmed(6, 1, "old", true),
    ];
    let lock = Lock::fold(&stream).expect("a stream");
    let in_slot: Vec<&str> = lock
        .keys
        .iter()
        .filter(|k| k.held.index == KeyIndex::new(2).ok())
        .map(|k| k.held.key.as_str())
        .collect();
    assert_eq!(in_slot, ["new"]);
}

#[test]
fn a_lock_rejects_events_that_do_not_continue_its_stream() {
    let first = created(lock_id(1));
    let mut lock = Lock::fold([&first]).expect("a stream");
    let before = lock.clone();
    let owner = LockEvent::OwnerSet {
        user: UserId::new("u").expect("a user id"),
    };
    let mut other_lock = event(2, None, owner.clone());
    other_lock.lock = lock_id(2);
    for wrong in [
        first,
        event(3, None, owner.clone()),
        event(1, None, owner),
        other_lock,
    ] {
        assert!(lock.apply(&wrong).is_err(), "{wrong:?}");
        assert_eq!(lock, before);
    }
    assert!(Lock::fold(&[]).is_err());
}

proptest! {
    /// The events of a permitted write apply, and the open writes stay within the limits.
    #[test]
    fn permitted_writes_apply_and_stay_within_the_limits(requests in prop::collection::vec(("[abc]", prop::option::of(0..4_u64)), 1..40)) {
        let mut snapshot = snapshot();
        for (n, (key, index)) in requests.into_iter().enumerate() {
            let slot = slot(&key, index);
            let Ok(WriteDecision::Write(_)) = decide(&snapshot, slot.clone()) else { continue };
            let (write, _) = prepared(&snapshot, n as u128 + 1, slot);
            let limits = Limits::default();
            let (sent, save) = policy::commit(&snapshot, &write, ShadowVersion(2), &[], &limits, NOW);
            for event in &save.events {
                prop_assert_eq!(snapshot.lock.apply(event), Ok(()));
            }
            let ended: Vec<WriteId> = save.writes.iter().filter(|w| !w.is_open()).map(|w| w.id).collect();
            snapshot.unfinished.retain(|w| !ended.contains(&w.id));
            snapshot.unfinished.push(sent);
            snapshot.revision = snapshot.revision.next();
            prop_assert!(snapshot.open().count() <= limits.max_open_writes);
            let bytes: usize = snapshot.open().map(|w| w.entry_bytes() + Limits::RESULT_BYTES).sum();
            prop_assert!(bytes <= limits.document_budget);
        }
    }
}
