//! The parts of the OpenAPI document's schemas that are made from the domain's own names, and the events.

use std::collections::BTreeMap;

use keywright_domain::model::{
    Anomaly, FailureReason, KeyUuid, LockEvent, MAX_JSON_INTEGER, Retry, WriteState,
};
use serde_json::{Map, Value, json};
use utoipa::openapi::{
    Array, OneOf, Ref, RefOr, Schema, SchemaFormat, Type, schema::ObjectBuilder,
};

fn reference(name: &str, description: &str) -> RefOr<Schema> {
    let mut reference = Ref::from_schema_name(name);
    description.clone_into(&mut reference.description);
    reference.into()
}

/// What became of the write, beside the event of a 200.
pub(super) fn outcome() -> RefOr<Schema> {
    reference(
        "Outcome",
        "The write, where the request has `Prefer: wait`.",
    )
}

pub(super) fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::Custom("uuid".into());
    let text = ObjectBuilder::new().schema_type(Type::String);
    Schema::Object(
        text.format(Some(format))
            .description(Some("The id of the write."))
            .build(),
    )
    .into()
}

pub(super) fn write_state() -> RefOr<Schema> {
    reference("WriteState", "Where the write stands.")
}

pub(super) fn failure_reason() -> RefOr<Schema> {
    reference("FailureReason", "Why the write failed or was aborted.")
}

pub(super) fn retry() -> RefOr<Schema> {
    reference(
        "Retry",
        "What to do next to get the key into the lock, where the write failed or was aborted.",
    )
}

pub(super) fn anomalies() -> RefOr<Schema> {
    let mut anomalies = Array::new(reference("Anomaly", ""));
    anomalies.description = Some(
        "In which ways the lock's answers break the device contract. Absent where they do not."
            .into(),
    );
    Schema::Array(anomalies).into()
}

pub(super) fn event_type() -> RefOr<Schema> {
    reference("EventType", "The type of the event.")
}

pub(super) fn lock_event() -> RefOr<Schema> {
    reference("LockEvent", "The event.")
}

pub(super) fn requested_or_null() -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(Type::Null).build();
    let mut either = OneOf::new();
    either.items = vec![
        reference("KeyWriteRequested", ""),
        Schema::Object(null).into(),
    ];
    either.description = Some(
        "The event that was recorded. It is null where nothing had to be recorded, because the same write is open already.".into(),
    );
    Schema::OneOf(either).into()
}

/// The schemas that no Rust type has.
pub(super) fn components() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, description, values) in [
        (
            "WriteState",
            "Where a write stands. `PREPARED`: recorded, and not known to be on the shadow. `SENT`: on the shadow. `IN_PROGRESS`: the \
             lock has begun. `SUCCEEDED`: the lock has the key. `FAILED`: the lock refused or failed. `EXPIRED`: the lock did not \
             answer in time. `SUPERSEDED`: a newer write for the slot took its place. `WITHDRAWN`: taken back. `ABORTED`: the shadow \
             does not have it.",
            WriteState::NAMES.to_vec(),
        ),
        (
            "FailureReason",
            "Why a write failed at the lock or on the way to its shadow. `DeviceError` has the lock's own code beside it.",
            FailureReason::names().collect(),
        ),
        (
            "Retry",
            "What a client that wants the key in the lock does next. `never`: the same request cannot succeed. `after-change`: \
             something at the lock or in the request has to change. `back-off`: repeat later, with growing pauses. `retry-after`: \
             repeat after a few seconds.",
            Retry::NAMES.to_vec(),
        ),
        (
            "Anomaly",
            "A way in which a lock's answer breaks the device contract.",
            Anomaly::ALL.map(Anomaly::name).to_vec(),
        ),
        (
            "EventType",
            "The type of an event.",
            LockEvent::NAMES.to_vec(),
        ),
    ] {
        let schema = json!({ "type": "string", "description": description, "enum": values });
        all.insert(name.to_owned(), schema);
    }
    all.insert("WriteKey".into(), write_key());
    all.insert("HeldKey".into(), held_key());
    for (name, description, required, optional) in EVENTS {
        all.insert(
            name.to_owned(),
            event(name, description, required, optional),
        );
    }
    let path = |name: &str| format!("#/components/schemas/{name}");
    let types = EVENTS
        .iter()
        .map(|(name, ..)| json!({ "$ref": path(name) }));
    let mapping = EVENTS.iter().map(|(name, ..)| (*name, path(name)));
    all.insert(
        "LockEvent".into(),
        json!({
            "description": "One event of a lock; `type` says which.",
            "oneOf": types.collect::<Vec<_>>(),
            "discriminator": { "propertyName": "type", "mapping": mapping.collect::<BTreeMap<_, _>>() },
        }),
    );
    all
}

/// Each type of event: its name, what it says, and the members of its data besides those that every event has.
type EventSchema = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const EVENTS: [EventSchema; 11] = [
    (
        "LockCreated",
        "The lock exists. The first event of each lock.",
        &[],
        &[
            "serialNumber",
            "keys",
            "ownerId",
            "thingName",
            "thingArn",
            "keyCapacity",
        ],
    ),
    ("OwnerSet", "The lock has a new owner.", &["userId"], &[]),
    (
        "OrganizationSet",
        "The lock belongs to an organization.",
        &["orgId"],
        &[],
    ),
    (
        "KeyAdded",
        "The lock holds a key that was not written by this service.",
        &["keyUuid"],
        &["keyIndexNumber", "userId"],
    ),
    (
        "KeyRemoved",
        "The lock no longer holds a key.",
        &["keyUuid"],
        &["keyIndexNumber"],
    ),
    (
        "KeyWriteRequested",
        "The shadow of the lock accepted a write.",
        &["keyUuid"],
        &["keyIndexNumber"],
    ),
    (
        "KeyWriteConfirmed",
        "The lock reported that it has the key.",
        &["keyUuid"],
        &["keyIndexNumber", "writeId", "late"],
    ),
    (
        "KeyWriteFailed",
        "The lock refused the key or failed to write it.",
        &["keyUuid", "reason"],
        &["keyIndexNumber", "writeId", "code", "late"],
    ),
    (
        "KeyWriteExpired",
        "The lock did not report in time, and the write was taken off its shadow.",
        &["keyUuid"],
        &["keyIndexNumber", "writeId"],
    ),
    (
        "KeyWriteSuperseded",
        "A newer write for the same slot took the place of this one.",
        &["keyUuid"],
        &["keyIndexNumber", "writeId"],
    ),
    (
        "KeyWriteWithdrawn",
        "The write was taken back on request.",
        &["keyUuid"],
        &["keyIndexNumber", "writeId"],
    ),
];

fn event(name: &str, description: &str, required: &[&str], optional: &[&str]) -> Value {
    let always = ["lockId", "uuid", "timestamp"];
    let required: Vec<&str> = always.iter().chain(required).copied().collect();
    let members: Map<String, Value> = required
        .iter()
        .chain(optional)
        .map(|name| ((*name).to_owned(), member(name)))
        .collect();
    json!({
        "type": "object", "description": description, "required": ["type", "data"], "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "const": name, "description": "The type of the event." },
            "data": {
                "type": "object", "description": "What the event says.", "required": required,
                "additionalProperties": false, "properties": members,
            },
        },
    })
}

/// The schema of a member of an event's data.
fn member(name: &str) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    match name {
        "lockId" => {
            json!({ "type": "integer", "format": "int64", "minimum": 1, "description": "The number of the lock." })
        }
        "uuid" => text("The UUID of the lock."),
        "timestamp" => {
            json!({ "type": "string", "format": "date-time", "description": "When the event was recorded." })
        }
        "keyUuid" => text("The key."),
        "keyIndexNumber" => index("The slot. Absent where it is not known or the lock chooses."),
        "userId" => text("The user."),
        "orgId" => text("The organization."),
        "ownerId" => text("The user who owns the lock."),
        "serialNumber" => text("The serial number printed on the lock."),
        "thingName" => text("The AWS IoT thing whose shadow reaches the lock."),
        "thingArn" => text("The ARN of the thing."),
        "keyCapacity" => index("How many key slots the lock has."),
        "keys" => json!({
            "type": "array", "items": { "$ref": "#/components/schemas/HeldKey" },
            "description": "The keys that the lock holds from the start.",
        }),
        "writeId" => {
            json!({ "type": "string", "format": "uuid", "description": "The write that the event belongs to." })
        }
        "reason" => json!({
            "$ref": "#/components/schemas/FailureReason", "description": "Why the write failed.",
        }),
        "code" => text("The lock's own code, where the reason is `DeviceError`."),
        "late" => json!({
            "type": "boolean",
            "description": "True where the lock reported after the write had ended otherwise; else absent.",
        }),
        _ => unreachable!("EVENTS has no other member"),
    }
}

fn index(description: &str) -> Value {
    json!({
        "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_JSON_INTEGER,
        "description": description,
    })
}

fn held_key() -> Value {
    json!({
        "type": "object", "description": "A key that a lock holds.", "required": ["uuid"],
        "properties": {
            "uuid": { "type": "string", "description": "The key." },
            "indexNumber": index("The slot, where known."),
            "userId": { "type": "string", "description": "The user whose key it is, where known." },
        },
    })
}

fn write_key() -> Value {
    json!({
        "type": "object", "description": "A key to write to a lock. Other members are ignored.",
        "required": ["keyUuid"],
        "properties": {
            "keyUuid": {
                "type": "string", "minLength": 1, "maxLength": KeyUuid::MAX_BYTES,
                "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
                "description": "The key: text of at most 128 bytes without control characters.",
            },
            "keyIndexNumber": index("The slot. Without one, the lock chooses."),
        },
        "examples": [{ "keyUuid": "9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", "keyIndexNumber": 2 }],
    })
}

#[cfg(test)]
mod tests {
    use keywright_adapters::json::EventData;
    use keywright_domain::model::{
        DeviceCode, HeldKey, KeyIndex, KeySlot, LockId, LockVersion, NewLock, OrganizationId,
        RecordedEvent, Timestamp, UserId, WriteId,
    };

    use super::*;

    fn text<T: std::str::FromStr>(text: &str) -> T {
        text.parse().unwrap_or_else(|_| panic!("{text} is a value"))
    }

    /// One event of each type, with all members that it may have.
    fn full_events() -> [LockEvent; 11] {
        let slot = || KeySlot {
            key: text("key"),
            index: Some(KeyIndex::new(2).expect("an index")),
        };
        let held = || HeldKey {
            key: text("key"),
            index: slot().index,
            user: Some(text("user")),
        };
        [
            LockEvent::LockCreated(Box::new(NewLock {
                serial_number: Some(text("serial")),
                keys: vec![held()],
                owner: Some(text("owner")),
                thing: Some(text("thing")),
                thing_arn: Some("arn".into()),
                key_capacity: Some(100),
            })),
            LockEvent::OwnerSet {
                user: text::<UserId>("user"),
            },
            LockEvent::OrganizationSet {
                organization: text::<OrganizationId>("acme"),
            },
            LockEvent::KeyAdded(held()),
            LockEvent::KeyRemoved(slot()),
            LockEvent::KeyWriteRequested(slot()),
            LockEvent::KeyWriteConfirmed {
                slot: slot(),
                late: true,
            },
            LockEvent::KeyWriteFailed {
                slot: slot(),
                reason: FailureReason::DeviceError(DeviceCode::lossy("E17")),
                late: true,
            },
            LockEvent::KeyWriteExpired(slot()),
            LockEvent::KeyWriteSuperseded(slot()),
            LockEvent::KeyWriteWithdrawn(slot()),
        ]
    }

    #[test]
    fn each_event_has_exactly_the_members_of_its_schema() {
        for (event, (name, ..)) in full_events().into_iter().zip(EVENTS) {
            assert_eq!(event.name(), name);
            let recorded = RecordedEvent {
                lock: LockId::new(123).expect("a lock id"),
                uuid: text("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11"),
                version: LockVersion(1),
                time: Timestamp::from_millis(0),
                write: Some(WriteId::from_u128(1)),
                event,
            };
            let data = serde_json::to_value(EventData(&recorded)).expect("JSON");
            let schema = &components()[name]["properties"]["data"]["properties"];
            let members = |value: &Value| -> Vec<String> {
                let members = value.as_object().expect("an object");
                members.keys().cloned().collect()
            };
            assert_eq!(members(&data), members(schema), "{name}");
        }
    }

    #[test]
    fn the_tables_of_names_are_complete() {
        assert_eq!(full_events().map(|event| event.name()), LockEvent::NAMES);
        for name in FailureReason::names().filter(|name| *name != "DeviceError") {
            let reason: FailureReason = text(name);
            assert!(Retry::NAMES.contains(&reason.retry().as_str()), "{name}");
        }
    }
}
