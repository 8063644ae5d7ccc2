//! The JSON of writes and of idempotency records: reading it back loses nothing, and what is malformed is named.

use keywright_adapters::json::{IdempotencyData, WriteData, read_idempotency_record, read_write};
use keywright_domain::model::{
    Anomaly, IdempotencyRecord, KeyIndex, Lock, LockSnapshot, LockVersion, Requested, Revision,
    Write, WriteId,
};
use keywright_testkit::samples::{
    NOW, created_with_largest_numbers, created_with_longest_texts, every_reason, every_state,
    failures, in_state, lock_id, longest_scope, millis_after, prepared,
    prepared_with_longest_texts, scope, slot,
};
use serde_json::{Value, json};

fn snapshot() -> LockSnapshot {
    let lock = Lock::fold(&[created_with_largest_numbers()]).expect("a lock");
    LockSnapshot::new(lock, Revision(1), None, Vec::new())
}

fn sample() -> Write {
    let (write, _) = prepared(&snapshot(), u128::MAX - 1, slot("key", Some(2)));
    write
}

fn assert_read_back(write: &Write) {
    let data = json!(WriteData(write));
    assert_eq!(read_write(&data).as_ref(), Ok(write), "{data}");
}

#[test]
fn writes_in_every_state_are_read_back() {
    let reasons = every_reason();
    let failures = reasons.iter().flat_map(failures);
    for state in every_state().into_iter().chain(failures) {
        assert_read_back(&in_state(&sample(), state));
    }
}

#[test]
fn writes_with_every_member_are_read_back() {
    let lock = Lock::fold(&[created_with_longest_texts(lock_id(1))]).expect("a lock");
    let longest = LockSnapshot::new(lock, Revision(1), None, Vec::new());
    assert_read_back(&prepared_with_longest_texts(&longest, 7).0);
    assert_read_back(&Write {
        requested: Some(Requested {
            version: LockVersion(9),
            time: millis_after(NOW, 1),
        }),
        anomalies: Anomaly::ALL.into_iter().collect(),
        reported_index: KeyIndex::new(0).ok(),
        next_check_at: Some(millis_after(NOW, 999)),
        slot: slot("key", None),
        ..sample()
    });
}

#[test]
fn idempotency_records_are_read_back() {
    for (scope, version) in [
        (scope("a \"quoted\" key"), None),
        (longest_scope(), Some(LockVersion(7))),
    ] {
        let record = IdempotencyRecord {
            scope,
            slot: slot("key", Some(2)),
            write: WriteId::from_u128(9),
            version_without_event: version,
            answer_deadline: NOW,
            expires_at: millis_after(NOW, 1),
        };
        let data = json!(IdempotencyData(&record));
        assert_eq!(read_idempotency_record(&data), Ok(record), "{data}");
    }
}

#[test]
fn every_required_member_is_checked_and_named() {
    let write = json!(WriteData(&sample()));
    let optional = ["keyIndexNumber", "nextCheckAt", "requestId"];
    for member in write.as_object().expect("an object").keys() {
        let mut missing = write.clone();
        missing.as_object_mut().expect("an object").remove(member);
        let mut malformed = write.clone();
        malformed[member] = json!([]);
        if !optional.contains(&member.as_str()) {
            let error = read_write(&missing).expect_err("refused").to_string();
            assert!(error.contains(member.as_str()), "{member}: {error}");
        }
        let error = read_write(&malformed).expect_err("refused").to_string();
        assert!(error.contains(member.as_str()), "{member}: {error}");
    }
    let mut later = write;
    later["format"] = json!(2);
    assert!(read_write(&later).is_err());
    assert!(read_write(&Value::Null).is_err());
}
