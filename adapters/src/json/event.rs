//! Lock events as the vendor's schemas have them. `KeyWriteRequested` is closed: exactly its members.

use keywright_domain::event::{HeldKey, KeySlot, LockEvent, NewLock, RecordedEvent};
use keywright_domain::reason::FailureReason;
use keywright_domain::values::{
    DeviceCode, InvalidValue, KeyIndex, LockId, LockVersion, Timestamp, WriteId,
};
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// An event that cannot be read, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    /// A member is missing, or of another JSON type.
    #[error("`{member}` must be {expected}")]
    Member {
        /// Its name.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A member is not a value of its kind.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// No event of that type is known.
    #[error("`type` must be one of the lock's event types")]
    Type,
}

/// The `data` of an event. Our own events carry `writeId` besides the members of `KeyWriteRequested`, and
/// `reason`, `code` and `late` where they apply.
pub fn event_data(recorded: &RecordedEvent) -> Value {
    let mut data = json!({
        "lockId": recorded.lock.get(),
        "uuid": recorded.uuid.as_str(),
        "timestamp": recorded.time.to_string(),
    });
    let put = |data: &mut Value, member: &str, value: Option<Value>| {
        if let Some(value) = value {
            data[member] = value;
        }
    };
    match &recorded.event {
        LockEvent::LockCreated(new) => {
            put(
                &mut data,
                "serialNumber",
                new.serial_number.as_ref().map(|s| json!(s.as_str())),
            );
            if !new.keys.is_empty() {
                data["keys"] = new.keys.iter().map(held_key).collect();
            }
            put(
                &mut data,
                "ownerId",
                new.owner.as_ref().map(|o| json!(o.as_str())),
            );
            put(
                &mut data,
                "thingName",
                new.thing.as_ref().map(|t| json!(t.as_str())),
            );
            put(
                &mut data,
                "thingArn",
                new.thing_arn.as_ref().map(|a| json!(a)),
            );
            put(&mut data, "keyCapacity", new.key_capacity.map(|c| json!(c)));
        }
        LockEvent::OwnerSet { user } => data["userId"] = json!(user.as_str()),
        LockEvent::OrganizationSet { organization } => data["orgId"] = json!(organization.as_str()),
        LockEvent::KeyAdded(held) => {
            put_slot(
                &mut data,
                &KeySlot {
                    key: held.key.clone(),
                    index: held.index,
                },
            );
            put(
                &mut data,
                "userId",
                held.user.as_ref().map(|u| json!(u.as_str())),
            );
        }
        LockEvent::KeyRemoved(slot)
        | LockEvent::KeyWriteRequested(slot)
        | LockEvent::KeyWriteConfirmed { slot, .. }
        | LockEvent::KeyWriteFailed { slot, .. }
        | LockEvent::KeyWriteExpired(slot)
        | LockEvent::KeyWriteSuperseded(slot)
        | LockEvent::KeyWriteWithdrawn(slot) => put_slot(&mut data, slot),
    }
    if is_ours(&recorded.event) {
        put(
            &mut data,
            "writeId",
            recorded.write.map(|id| json!(id.to_string())),
        );
    }
    if let LockEvent::KeyWriteFailed { reason, .. } = &recorded.event {
        data["reason"] = json!(reason.name());
        put(
            &mut data,
            "code",
            reason.device_code().map(|c| json!(c.as_str())),
        );
    }
    if let LockEvent::KeyWriteConfirmed { late: true, .. }
    | LockEvent::KeyWriteFailed { late: true, .. } = &recorded.event
    {
        data["late"] = json!(true);
    }
    data
}

/// Reads an event of type `name` at `version`. The `write` that a `KeyWriteRequested` belongs to stands
/// beside its closed data; our other events carry it inside. Members that are not known are ignored.
///
/// # Errors
/// See [`InvalidEvent`].
pub fn read_event(
    name: &str,
    version: LockVersion,
    write: Option<WriteId>,
    data: &Value,
) -> Result<RecordedEvent, InvalidEvent> {
    let data = data.as_object().ok_or(InvalidEvent::Member {
        member: "data",
        expected: "an object",
    })?;
    let event = match name {
        "LockCreated" => LockEvent::LockCreated(Box::new(read_new_lock(data)?)),
        "OwnerSet" => LockEvent::OwnerSet {
            user: required(data, "userId")?.parse()?,
        },
        "OrganizationSet" => LockEvent::OrganizationSet {
            organization: required(data, "orgId")?.parse()?,
        },
        "KeyAdded" => LockEvent::KeyAdded(read_held_key(data, "keyUuid", "keyIndexNumber")?),
        "KeyRemoved" => LockEvent::KeyRemoved(read_slot(data)?),
        "KeyWriteRequested" => LockEvent::KeyWriteRequested(read_slot(data)?),
        "KeyWriteConfirmed" => LockEvent::KeyWriteConfirmed {
            slot: read_slot(data)?,
            late: read_late(data),
        },
        "KeyWriteFailed" => LockEvent::KeyWriteFailed {
            slot: read_slot(data)?,
            reason: read_reason(data)?,
            late: read_late(data),
        },
        "KeyWriteExpired" => LockEvent::KeyWriteExpired(read_slot(data)?),
        "KeyWriteSuperseded" => LockEvent::KeyWriteSuperseded(read_slot(data)?),
        "KeyWriteWithdrawn" => LockEvent::KeyWriteWithdrawn(read_slot(data)?),
        _ => return Err(InvalidEvent::Type),
    };
    let write = match optional(data, "writeId")? {
        Some(id) if is_ours(&event) => Some(id.parse()?),
        _ => write,
    };
    let lock = number(data, "lockId")?.ok_or(InvalidEvent::Member {
        member: "lockId",
        expected: "a positive integer",
    })?;
    let time: Timestamp = required(data, "timestamp")?.parse()?;
    Ok(RecordedEvent {
        lock: LockId::new(lock)?,
        uuid: required(data, "uuid")?.parse()?,
        version,
        time,
        write,
        event,
    })
}

/// An event that the vendor does not have, so that its data may carry the write's id.
fn is_ours(event: &LockEvent) -> bool {
    matches!(
        event,
        LockEvent::KeyWriteConfirmed { .. }
            | LockEvent::KeyWriteFailed { .. }
            | LockEvent::KeyWriteExpired(_)
            | LockEvent::KeyWriteSuperseded(_)
            | LockEvent::KeyWriteWithdrawn(_)
    )
}

fn put_slot(data: &mut Value, slot: &KeySlot) {
    data["keyUuid"] = json!(slot.key.as_str());
    if let Some(index) = slot.index {
        data["keyIndexNumber"] = json!(index.get());
    }
}

fn held_key(held: &HeldKey) -> Value {
    let mut key = json!({ "uuid": held.key.as_str() });
    if let Some(index) = held.index {
        key["indexNumber"] = json!(index.get());
    }
    if let Some(user) = &held.user {
        key["userId"] = json!(user.as_str());
    }
    key
}

fn read_new_lock(data: &Object) -> Result<NewLock, InvalidEvent> {
    let keys = match data.get("keys") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(keys)) => keys
            .iter()
            .map(|key| {
                let key = key.as_object();
                let expected = "an array of objects";
                let key = key.ok_or(InvalidEvent::Member {
                    member: "keys",
                    expected,
                })?;
                read_held_key(key, "uuid", "indexNumber")
            })
            .collect::<Result<_, _>>()?,
        Some(_) => {
            return Err(InvalidEvent::Member {
                member: "keys",
                expected: "an array of objects",
            });
        }
    };
    Ok(NewLock {
        serial_number: optional(data, "serialNumber")?
            .map(str::parse)
            .transpose()?,
        keys,
        owner: optional(data, "ownerId")?.map(str::parse).transpose()?,
        thing: optional(data, "thingName")?.map(str::parse).transpose()?,
        thing_arn: optional(data, "thingArn")?.map(str::to_owned),
        key_capacity: number(data, "keyCapacity")?,
    })
}

fn read_held_key(
    data: &Object,
    key: &'static str,
    index: &'static str,
) -> Result<HeldKey, InvalidEvent> {
    Ok(HeldKey {
        key: required(data, key)?.parse()?,
        index: number(data, index)?.map(KeyIndex::new).transpose()?,
        user: optional(data, "userId")?.map(str::parse).transpose()?,
    })
}

fn read_slot(data: &Object) -> Result<KeySlot, InvalidEvent> {
    Ok(KeySlot {
        key: required(data, "keyUuid")?.parse()?,
        index: number(data, "keyIndexNumber")?
            .map(KeyIndex::new)
            .transpose()?,
    })
}

fn read_reason(data: &Object) -> Result<FailureReason, InvalidEvent> {
    if let Some(code) = optional(data, "code")? {
        return Ok(FailureReason::DeviceError(DeviceCode::new(code)?));
    }
    let unknown = InvalidEvent::Member {
        member: "reason",
        expected: "a known failure reason",
    };
    required(data, "reason")?.parse().map_err(|()| unknown)
}

fn read_late(data: &Object) -> bool {
    data.get("late").and_then(Value::as_bool).unwrap_or(false)
}

fn required<'a>(data: &'a Object, member: &'static str) -> Result<&'a str, InvalidEvent> {
    optional(data, member)?.ok_or(InvalidEvent::Member {
        member,
        expected: "a string",
    })
}

fn optional<'a>(data: &'a Object, member: &'static str) -> Result<Option<&'a str>, InvalidEvent> {
    match data.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidEvent::Member {
            member,
            expected: "a string",
        }),
    }
}

fn number(data: &Object, member: &'static str) -> Result<Option<u64>, InvalidEvent> {
    match data.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let expected = "an integer of at least 0";
            value
                .as_u64()
                .map(Some)
                .ok_or(InvalidEvent::Member { member, expected })
        }
    }
}
