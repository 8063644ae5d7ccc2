//! The JSON of events: its members, and that reading it back loses nothing.

use std::str::FromStr;

use keywright_adapters::json::{EventData, InvalidJson, read_event};
use keywright_domain::model::{
    FailureReason, HeldKey, KeySlot, LockEvent, NewLock, RecordedEvent, *,
};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

const UUID: &str = "6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11";

#[test]
fn key_write_requested_has_exactly_the_members_of_the_contract() {
    let recorded = RecordedEvent {
        lock: LockId::new(123).expect("a lock id"),
        uuid: LockUuid::new(UUID).expect("a uuid"),
        version: LockVersion(7),
        time: "2026-05-29T12:00:00.000Z".parse().expect("a time"),
        write: Some(WriteId::from_u128(9)),
        cause: None,
        event: LockEvent::KeyWriteRequested(KeySlot {
            key: KeyUuid::new("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b").expect("a key"),
            index: KeyIndex::new(2).ok(),
        }),
    };
    let expected = json!({
        "lockId": 123, "uuid": UUID, "timestamp": "2026-05-29T12:00:00.000Z",
        "keyUuid": "9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", "keyIndexNumber": 2,
    });
    assert_eq!(json!(EventData(&recorded)), expected);
}

fn text<T>() -> impl Strategy<Value = T>
where
    T: FromStr<Err = InvalidValue> + std::fmt::Debug,
{
    "[a-zA-Z0-9:_-]{1,40}".prop_map(|text| text.parse().expect("valid text"))
}

fn index() -> impl Strategy<Value = Option<KeyIndex>> {
    of((0..=MAX_JSON_INTEGER).prop_map(|i| KeyIndex::new(i).expect("an index")))
}

fn slot() -> impl Strategy<Value = KeySlot> {
    (text::<KeyUuid>(), index()).prop_map(|(key, index)| KeySlot { key, index })
}

fn held() -> impl Strategy<Value = HeldKey> {
    (text::<KeyUuid>(), index(), of(text::<UserId>())).prop_map(|(key, index, user)| HeldKey {
        key,
        index,
        user,
    })
}

fn new_lock() -> impl Strategy<Value = NewLock> {
    let keys = prop::collection::vec(held(), 0..4);
    let names = (of(text()), of(text()), of(text()), of("[a-z:/0-9]{1,60}"));
    (keys, names, of(0..1000_u64)).prop_map(|(keys, names, key_capacity)| {
        let (serial_number, owner, thing, thing_arn) = names;
        NewLock {
            serial_number,
            keys,
            owner,
            thing,
            thing_arn,
            key_capacity,
        }
    })
}

fn reason() -> impl Strategy<Value = FailureReason> {
    prop_oneof![
        Just(FailureReason::NoSpace),
        Just(FailureReason::NoCardPresent),
        Just(FailureReason::Rebound),
        text().prop_map(FailureReason::DeviceError),
    ]
}

fn event() -> impl Strategy<Value = LockEvent> {
    prop_oneof![
        new_lock().prop_map(|new| LockEvent::LockCreated(Box::new(new))),
        text().prop_map(|user| LockEvent::OwnerSet { user }),
        text().prop_map(|organization| LockEvent::OrganizationSet { organization }),
        held().prop_map(LockEvent::KeyAdded),
        slot().prop_map(LockEvent::KeyRemoved),
        slot().prop_map(LockEvent::KeyWriteRequested),
        (slot(), any::<bool>())
            .prop_map(|(slot, late)| LockEvent::KeyWriteConfirmed { slot, late }),
        (slot(), reason(), any::<bool>())
            .prop_map(|(slot, reason, late)| LockEvent::KeyWriteFailed { slot, reason, late }),
        slot().prop_map(LockEvent::KeyWriteExpired),
        slot().prop_map(LockEvent::KeyWriteSuperseded),
        slot().prop_map(LockEvent::KeyWriteWithdrawn),
    ]
}

proptest! {
    #[test]
    fn reads_back_every_event(event in event(), lock in 1..=MAX_JSON_INTEGER, version: u32, write: u128) {
        let is_of_write = event.name().starts_with("KeyWrite");
        let recorded = RecordedEvent {
            lock: LockId::new(lock).expect("a lock id"),
            uuid: LockUuid::new(UUID).expect("a uuid"),
            version: LockVersion(version.into()),
            time: Timestamp::from_millis(u64::from(version) * 977),
            cause: None,
            write: is_of_write.then_some(WriteId::from_u128(write)),
            event,
        };
        let text = serde_json::to_string(&EventData(&recorded)).expect("JSON");
        let data: Value = serde_json::from_str(&text).expect("JSON");
        // The write's id is stored beside the data of a request, and in the data of the other events.
        let write_column = matches!(recorded.event, LockEvent::KeyWriteRequested(_)).then_some(recorded.write).flatten();
        let read = read_event(recorded.event.name(), recorded.version, write_column, &data);
        prop_assert_eq!(read, Ok(recorded));
    }

    #[test]
    fn rejects_any_other_data(name in "KeyAdded|LockCreated|KeyWriteFailed|x", member in "lockId|uuid|keys|keyUuid|code", value in "[0-9\"\\[\\]a-z{}]{0,8}") {
        let value: Value = serde_json::from_str(&value).unwrap_or(Value::Null);
        let read = read_event(&name, LockVersion(1), None, &json!({ (member): value }));
        prop_assert!(read.is_err());
    }
}

#[test]
fn errors_name_the_member() {
    let read = |data: &Value| read_event("KeyAdded", LockVersion(1), None, data);
    let error = read(&json!({ "keyUuid": 7 })).expect_err("not a string");
    assert_eq!(
        error,
        InvalidJson::Member {
            member: "keyUuid",
            expected: "a string"
        }
    );
    let error = read_event("Exploded", LockVersion(1), None, &json!({})).expect_err("no such type");
    assert_eq!(error, InvalidJson::Type);
}
