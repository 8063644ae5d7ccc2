//! Schemas of the OpenAPI document that are not derived from Rust types: enumerations of the domain's names, events, and the
//! body of `WriteKey`.

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

pub(super) fn outcome() -> RefOr<Schema> {
    reference(
        "Outcome",
        "The write at the end of the wait. Present if the request has `Prefer: wait`.",
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
    reference("WriteState", "The state of the write.")
}

pub(super) fn failure_reason() -> RefOr<Schema> {
    reference("FailureReason", "Why the write failed or was aborted.")
}

pub(super) fn retry() -> RefOr<Schema> {
    reference(
        "Retry",
        "What a client does next to get the key into the lock. Present if the write failed or was aborted.",
    )
}

pub(super) fn anomalies() -> RefOr<Schema> {
    let mut anomalies = Array::new(reference("Anomaly", ""));
    anomalies.description = Some(
        "How the lock's reports deviate from the device contract. Absent if they do not.".into(),
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
    let mut event_or_null = OneOf::new();
    event_or_null.items = vec![
        reference("KeyWriteRequested", ""),
        Schema::Object(null).into(),
    ];
    event_or_null.description = Some(
        "The event that was recorded. Null if the same write is already open, so that nothing had to be recorded.".into(),
    );
    Schema::OneOf(event_or_null).into()
}

/// The schemas by name.
pub(super) fn components() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, description, values) in [
        (
            "WriteState",
            "The state of a write. `PREPARED`: recorded; not known to be on the shadow. `SENT`: on the shadow. `IN_PROGRESS`: the \
             lock has begun. `SUCCEEDED`: the lock has the key. `FAILED`: the lock refused or failed. `EXPIRED`: the lock did not \
             report in time. `SUPERSEDED`: replaced by a newer write for the same key index. `WITHDRAWN`: withdrawn on request. \
             `ABORTED`: not on the shadow.",
            WriteState::NAMES.to_vec(),
        ),
        (
            "FailureReason",
            "Why a write failed at the lock or was aborted before. With `DeviceError`, `code` has the lock's error code.",
            FailureReason::names().collect(),
        ),
        (
            "Retry",
            "What a client does next to get the key into the lock. `never`: the same request cannot succeed. `after-change`: \
             something at the lock or in the request has to change first. `back-off`: repeat later, with growing pauses. \
             `retry-after`: repeat after a few seconds.",
            Retry::NAMES.to_vec(),
        ),
        (
            "Anomaly",
            "A deviation of a lock's report from the device contract.",
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
    for event in &EVENTS {
        all.insert(event.name.to_owned(), event.schema());
    }
    let path = |name: &str| format!("#/components/schemas/{name}");
    let types = EVENTS
        .iter()
        .map(|event| json!({ "$ref": path(event.name) }));
    let mapping = EVENTS.iter().map(|event| (event.name, path(event.name)));
    all.insert(
        "LockEvent".into(),
        json!({
            "description": "One event of a lock. `type` selects the schema.",
            "oneOf": types.collect::<Vec<_>>(),
            "discriminator": { "propertyName": "type", "mapping": mapping.collect::<BTreeMap<_, _>>() },
        }),
    );
    all
}

/// A type of event.
struct EventSchema {
    name: &'static str,
    description: &'static str,
    /// Members of `data` that this type always has, besides those of every event.
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const EVENTS: [EventSchema; 11] = [
    EventSchema {
        name: "LockCreated",
        description: "The lock was added. It is the first event of each lock.",
        required: &[],
        optional: &[
            "serialNumber",
            "keys",
            "ownerId",
            "thingName",
            "thingArn",
            "keyCapacity",
        ],
    },
    EventSchema {
        name: "OwnerSet",
        description: "The lock has a new owner.",
        required: &["userId"],
        optional: &[],
    },
    EventSchema {
        name: "OrganizationSet",
        description: "The lock belongs to an organization.",
        required: &["orgId"],
        optional: &[],
    },
    EventSchema {
        name: "KeyAdded",
        description: "The lock holds a key that this service did not write.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber", "userId"],
    },
    EventSchema {
        name: "KeyRemoved",
        description: "The lock no longer holds a key.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber"],
    },
    EventSchema {
        name: "KeyWriteRequested",
        description: "The shadow of the lock accepted a write.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber"],
    },
    EventSchema {
        name: "KeyWriteConfirmed",
        description: "The lock reported that it has the key.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber", "writeId", "late"],
    },
    EventSchema {
        name: "KeyWriteFailed",
        description: "The lock refused the key or failed to write it.",
        required: &["keyUuid", "reason"],
        optional: &["keyIndexNumber", "writeId", "code", "late"],
    },
    EventSchema {
        name: "KeyWriteExpired",
        description: "The lock did not report in time, and the write was removed from its shadow.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber", "writeId"],
    },
    EventSchema {
        name: "KeyWriteSuperseded",
        description: "A newer write for the same key index replaced this one.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber", "writeId"],
    },
    EventSchema {
        name: "KeyWriteWithdrawn",
        description: "The write was withdrawn on request.",
        required: &["keyUuid"],
        optional: &["keyIndexNumber", "writeId"],
    },
];

impl EventSchema {
    fn schema(&self) -> Value {
        let always = ["lockId", "uuid", "timestamp"];
        let required: Vec<&str> = always.iter().chain(self.required).copied().collect();
        let members: Map<String, Value> = required
            .iter()
            .chain(self.optional)
            .map(|name| ((*name).to_owned(), member(name)))
            .collect();
        json!({
            "type": "object", "description": self.description, "required": ["type", "data"],
            "additionalProperties": false,
            "properties": {
                "type": { "type": "string", "const": self.name, "description": "The type of the event." },
                "data": {
                    "type": "object", "description": "The data of the event.", "required": required,
                    "additionalProperties": false, "properties": members,
                },
            },
        })
    }
}

/// The schema of a member of an event's data.
fn member(name: &str) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    match name {
        "lockId" => {
            json!({ "type": "integer", "format": "int64", "minimum": 1, "description": "The id of the lock." })
        }
        "uuid" => text("The UUID of the lock."),
        "timestamp" => {
            json!({ "type": "string", "format": "date-time", "description": "When the event was recorded." })
        }
        "keyUuid" => text("The key."),
        "keyIndexNumber" => {
            index("The key index. Absent if it is not known or the lock chooses it.")
        }
        "userId" => text("The user."),
        "orgId" => text("The organization."),
        "ownerId" => text("The user who owns the lock."),
        "serialNumber" => text("The serial number printed on the lock."),
        "thingName" => text("The AWS IoT thing of the lock."),
        "thingArn" => text("The ARN of the thing."),
        "keyCapacity" => index("The number of key indexes of the lock."),
        "keys" => json!({
            "type": "array", "items": { "$ref": "#/components/schemas/HeldKey" },
            "description": "The keys that the lock held when it was added.",
        }),
        "writeId" => {
            json!({ "type": "string", "format": "uuid", "description": "The write of the event." })
        }
        "reason" => json!({
            "$ref": "#/components/schemas/FailureReason", "description": "Why the write failed.",
        }),
        "code" => {
            text("The error code that the lock reported. Present if the reason is `DeviceError`.")
        }
        "late" => json!({
            "type": "boolean",
            "description": "True if the lock reported after the write had ended otherwise. Absent otherwise.",
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
            "indexNumber": index("The key index, if known."),
            "userId": { "type": "string", "description": "The user whose key it is, if known." },
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
            "keyIndexNumber": index("The key index. Without it, the lock chooses one."),
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

    /// One event of each type, with all optional members.
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
        for (event, EventSchema { name, .. }) in full_events().into_iter().zip(EVENTS) {
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
    fn the_schemas_name_all_events_and_retries() {
        assert_eq!(full_events().map(|event| event.name()), LockEvent::NAMES);
        for name in FailureReason::names().filter(|name| *name != "DeviceError") {
            let reason: FailureReason = text(name);
            assert!(Retry::NAMES.contains(&reason.retry().as_str()), "{name}");
        }
    }
}
