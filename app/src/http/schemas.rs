//! Schemas of the OpenAPI document that are not derived from Rust types: enumerations of the domain's names, events, and the
//! body of `WriteKey`.

use std::collections::BTreeMap;

use keywright_domain::model::{
    Anomaly, FailureReason, KeyUuid, LockEvent, MAX_JSON_INTEGER, Retry, WriteState,
};
use serde_json::{Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, RefBuilder};
use utoipa::openapi::{Ref, RefOr, Schema, Type};

fn reference(name: &str, description: &str) -> RefOr<Schema> {
    let reference = RefBuilder::new().ref_location_from_schema_name(name);
    reference.description(Some(description)).into()
}

pub(super) fn outcome() -> RefOr<Schema> {
    reference(
        "Outcome",
        "The write at the end of the wait. Present if the request has `Prefer: wait`.",
    )
}

pub(super) fn write_state() -> RefOr<Schema> {
    reference("WriteState", "The state of the write.")
}

pub(super) fn reach() -> RefOr<Schema> {
    reference(
        "Reach",
        "Whether the key can reach the lock, or has reached it.",
    )
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
    let text = "How the lock's reports deviate from the device contract. Absent if they do not.";
    let anomalies = ArrayBuilder::new().items(Ref::from_schema_name("Anomaly"));
    anomalies.description(Some(text)).into()
}

pub(super) fn cause() -> RefOr<Schema> {
    let text = "What led to the event. Absent if the event was imported.";
    reference("CauseItem", text)
}

pub(super) fn event_type() -> RefOr<Schema> {
    reference("EventType", "The type of the event.")
}

pub(super) fn lock_event() -> RefOr<Schema> {
    reference("LockEvent", "The event.")
}

pub(super) fn requested_or_null() -> RefOr<Schema> {
    let event_or_null = OneOfBuilder::new()
        .item(Ref::from_schema_name("KeyWriteRequested"))
        .item(ObjectBuilder::new().schema_type(Type::Null));
    let text = "The event that was recorded. Null if the same write is already open, so that nothing had to be recorded.";
    event_or_null.description(Some(text)).into()
}

/// Text of at most this many bytes, without control characters.
pub(super) fn printable_text(max_bytes: usize) -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": max_bytes,
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
    })
}

/// The schemas by name.
pub(super) fn components() -> Value {
    let path = |name: &str| format!("#/components/schemas/{name}");
    let types = EVENTS.map(|(name, ..)| json!({ "$ref": path(name) }));
    let mapping = BTreeMap::from(EVENTS.map(|(name, ..)| (name, path(name))));
    let mut key = printable_text(KeyUuid::MAX_BYTES);
    key["description"] = json!("The key: text of at most 128 bytes without control characters.");
    let mut all = json!({
        "WriteState": {
            "type": "string", "enum": WriteState::NAMES,
            "description": "The state of a write. `PREPARED`: recorded; not known to be on the shadow. `SENT`: on the shadow. \
                `IN_PROGRESS`: the lock has begun. `SUCCEEDED`: the lock has the key. `FAILED`: the lock refused or failed. \
                `EXPIRED`: the lock did not report in time. `SUPERSEDED`: replaced by a newer write for the same key index. \
                `WITHDRAWN`: withdrawn on request. `ABORTED`: not on the shadow.",
        },
        "Reach": {
            "type": "string", "enum": ["yes", "until", "no"],
            "description": "Whether the key of a write can reach the lock. `yes`: the lock has it, or is storing it. `until`: it can, \
                until `canReachLockUntil`. `no`: it never will.",
        },
        "FailureReason": {
            "type": "string", "enum": FailureReason::names().collect::<Vec<_>>(),
            "description": "Why a write failed at the lock or was aborted before. With `DeviceError`, `code` has the lock's error \
                code.",
        },
        "Retry": {
            "type": "string", "enum": Retry::NAMES,
            "description": "What a client does next to get the key into the lock. `never`: the same request cannot succeed. \
                `after-change`: something at the lock or in the request has to change first. `back-off`: repeat later, with \
                growing pauses. `retry-after`: repeat after a few seconds.",
        },
        "Anomaly": {
            "type": "string", "enum": Anomaly::ALL.map(Anomaly::name),
            "description": "A deviation of a lock's report from the device contract.",
        },
        "EventType": {
            "type": "string", "enum": LockEvent::NAMES, "description": "The type of an event.",
        },
        "LockEvent": {
            "description": "One event of a lock. `type` selects the schema.", "oneOf": types,
            "discriminator": { "propertyName": "type", "mapping": mapping },
        },
        "HeldKey": {
            "type": "object", "description": "A key that a lock holds.", "required": ["uuid"],
            "properties": {
                "uuid": text("The key."),
                "indexNumber": index("The key index, if known."),
                "userId": text("The user whose key it is, if known."),
            },
        },
        "WriteKey": {
            "type": "object", "description": "A key to write to a lock. Other members are ignored.",
            "required": ["keyUuid"],
            "properties": {
                "keyUuid": key,
                "keyIndexNumber": index("The key index. Without it, the lock chooses one."),
            },
            "examples": [{ "keyUuid": "9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", "keyIndexNumber": 2 }],
        },
    });
    for event in EVENTS {
        all[event.0] = event_schema(event);
    }
    all
}

/// Each type of event: its name, its description, and the members of its `data` besides those of every event. Those with `?` are
/// optional.
const EVENTS: [(&str, &str, &str); 11] = [
    (
        "LockCreated",
        "The lock was added. It is the first event of each lock.",
        "serialNumber? keys? ownerId? thingName? thingArn? keyCapacity?",
    ),
    ("OwnerSet", "The lock has a new owner.", "userId"),
    (
        "OrganizationSet",
        "The lock belongs to an organization.",
        "orgId",
    ),
    (
        "KeyAdded",
        "The lock holds a key that this service did not write.",
        "keyUuid keyIndexNumber? userId?",
    ),
    (
        "KeyRemoved",
        "The lock no longer holds a key.",
        "keyUuid keyIndexNumber?",
    ),
    (
        "KeyWriteRequested",
        "The shadow of the lock accepted a write.",
        "keyUuid keyIndexNumber?",
    ),
    (
        "KeyWriteConfirmed",
        "The lock reported that it has the key.",
        "keyUuid keyIndexNumber? writeId? late?",
    ),
    (
        "KeyWriteFailed",
        "The lock refused the key or failed to write it.",
        "keyUuid reason keyIndexNumber? writeId? code? late?",
    ),
    (
        "KeyWriteExpired",
        "The lock did not report in time, and the write was removed from its shadow.",
        "keyUuid keyIndexNumber? writeId?",
    ),
    (
        "KeyWriteSuperseded",
        "A newer write for the same key index replaced this one.",
        "keyUuid keyIndexNumber? writeId?",
    ),
    (
        "KeyWriteWithdrawn",
        "The write was withdrawn on request.",
        "keyUuid keyIndexNumber? writeId?",
    ),
];

fn event_schema((name, description, members): (&str, &str, &str)) -> Value {
    let members = { "lockId uuid timestamp".split(' ') }.chain(members.split(' '));
    let required = members.clone().filter(|member| !member.ends_with('?'));
    let required: Vec<_> = required.collect();
    let (schemas, mut members_by_name) = (member_schemas(), json!({}));
    for member in members.map(|member| member.trim_end_matches('?')) {
        members_by_name[member] = schemas[member].clone();
    }
    json!({
        "type": "object", "description": description, "required": ["type", "data"],
        "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "const": name, "description": "The type of the event." },
            "data": {
                "type": "object", "description": "The data of the event.", "required": required,
                "additionalProperties": false, "properties": members_by_name,
            },
        },
    })
}

/// The bodies of deliveries to webhooks, by name: the envelope of AWS EventBridge, with an event of each type.
pub(super) fn deliveries() -> Vec<(String, Value)> {
    let deliveries = EVENTS.map(|event| {
        let (name, description, _) = event;
        let mut data = event_schema(event)["properties"]["data"].take();
        data["properties"]["type"] = json!({ "type": "string", "const": name, "description": "The type of the event." });
        if let Some(required) = data["required"].as_array_mut() {
            required.push(json!("type"));
        }
        let detail = json!({
            "type": "object", "description": "The event.", "additionalProperties": false,
            "required": ["partnerId", "aggregateType", "aggregateId", "version", "timestamp", "data"],
            "properties": {
                "partnerId": text("The organization that owns the lock, or an empty string."),
                "aggregateType": { "type": "string", "const": "lock", "description": "Always `lock`." },
                "aggregateId": text("The UUID of the lock."),
                "version": index("The version of the lock after the event."),
                "timestamp": index("When the event was recorded, in milliseconds since 1970."),
                "data": data,
            },
        });
        let schema = json!({
            "type": "object", "description": description, "additionalProperties": false,
            "required": [
                "id", "source", "detail-type", "time", "region", "account", "version", "resources", "detail",
            ],
            "properties": {
                "id": text("Identifies the event, also if it is delivered again."),
                "source": text("The setting `webhook-source`."),
                "detail-type": { "type": "string", "const": name, "description": "The type of the event." },
                "time": { "type": "string", "format": "date-time", "description": "When the event was recorded." },
                "region": text("The setting `webhook-region`."),
                "account": text("The setting `webhook-account`."),
                "version": { "type": "string", "const": "0", "description": "The version of the envelope." },
                "resources": {
                    "type": "array", "maxItems": 0, "items": { "type": "string" }, "description": "Always empty.",
                },
                "detail": detail,
            },
        });
        (format!("{name}Delivery"), schema)
    });
    deliveries.into()
}

/// The members of the data of all events.
fn member_schemas() -> Value {
    json!({
        "lockId": { "type": "integer", "format": "int64", "minimum": 1, "description": "The id of the lock." },
        "uuid": text("The UUID of the lock."),
        "timestamp": { "type": "string", "format": "date-time", "description": "When the event was recorded." },
        "keyUuid": text("The key."),
        "keyIndexNumber": index("The key index. Absent if it is not known or the lock chooses it."),
        "userId": text("The user."),
        "orgId": text("The organization."),
        "ownerId": text("The user who owns the lock."),
        "serialNumber": text("The serial number printed on the lock."),
        "thingName": text("The AWS IoT thing of the lock."),
        "thingArn": text("The ARN of the thing."),
        "keyCapacity": index("The number of key indexes of the lock."),
        "keys": {
            "type": "array", "items": { "$ref": "#/components/schemas/HeldKey" },
            "description": "The keys that the lock held when it was added.",
        },
        "writeId": { "type": "string", "format": "uuid", "description": "The write of the event." },
        "reason": { "$ref": "#/components/schemas/FailureReason", "description": "Why the write failed." },
        "code": text("The error code that the lock reported. Present if the reason is `DeviceError`."),
        "late": {
            "type": "boolean",
            "description": "True if the lock reported after the write had ended otherwise. Absent otherwise.",
        },
    })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn index(description: &str) -> Value {
    json!({
        "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_JSON_INTEGER,
        "description": description,
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
        for (event, (name, ..)) in full_events().into_iter().zip(EVENTS) {
            assert_eq!(event.name(), name);
            let recorded = RecordedEvent {
                lock: LockId::new(123).expect("a lock id"),
                uuid: text("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11"),
                version: LockVersion(1),
                time: Timestamp::from_millis(0),
                write: Some(WriteId::from_u128(1)),
                cause: None,
                event,
            };
            let data = serde_json::to_value(EventData(&recorded)).expect("JSON");
            let schema = &components()[name]["properties"]["data"]["properties"];
            let members = |value: &Value| -> Vec<String> {
                let members = value.as_object().expect("an object");
                members.keys().cloned().collect()
            };
            assert_eq!(members(&data), members(schema), "{name}");
            let mut members = schema.as_object().into_iter().flatten();
            let has_schemas = members.all(|(_, member)| !member.is_null());
            assert!(has_schemas, "{name} has a member without a schema");
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
