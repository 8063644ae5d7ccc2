//! Lock events as the vendor's schemas have them. `KeyWriteRequested` is closed: exactly its members.

use keywright_domain::event::{KeySlot, LockEvent, NewLock, RecordedEvent};
use keywright_domain::reason::FailureReason;
use keywright_domain::values::{DeviceCode, KeyIndex, LockId, LockVersion, Timestamp, WriteId};
use serde_json::{Value, json};

use super::members::{
    InvalidJson, Object, held_key, number, optional, read_held_key, read_keys, required,
};

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
/// See [`InvalidJson`].
pub fn read_event(
    name: &str,
    version: LockVersion,
    write: Option<WriteId>,
    data: &Value,
) -> Result<RecordedEvent, InvalidJson> {
    let data = data.as_object().ok_or(InvalidJson::Member {
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
        _ => return Err(InvalidJson::Type),
    };
    let write = match optional(data, "writeId")? {
        Some(id) if is_ours(&event) => Some(id.parse()?),
        _ => write,
    };
    let lock = number(data, "lockId")?.ok_or(InvalidJson::Member {
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

fn read_new_lock(data: &Object) -> Result<NewLock, InvalidJson> {
    Ok(NewLock {
        serial_number: optional(data, "serialNumber")?
            .map(str::parse)
            .transpose()?,
        keys: read_keys(data, |key| read_held_key(key, "uuid", "indexNumber"))?,
        owner: optional(data, "ownerId")?.map(str::parse).transpose()?,
        thing: optional(data, "thingName")?.map(str::parse).transpose()?,
        thing_arn: optional(data, "thingArn")?.map(str::to_owned),
        key_capacity: number(data, "keyCapacity")?,
    })
}

fn read_slot(data: &Object) -> Result<KeySlot, InvalidJson> {
    Ok(KeySlot {
        key: required(data, "keyUuid")?.parse()?,
        index: number(data, "keyIndexNumber")?
            .map(KeyIndex::new)
            .transpose()?,
    })
}

fn read_reason(data: &Object) -> Result<FailureReason, InvalidJson> {
    if let Some(code) = optional(data, "code")? {
        return Ok(FailureReason::DeviceError(DeviceCode::new(code)?));
    }
    let unknown = InvalidJson::Member {
        member: "reason",
        expected: "a known failure reason",
    };
    required(data, "reason")?.parse().map_err(|()| unknown)
}

fn read_late(data: &Object) -> bool {
    data.get("late").and_then(Value::as_bool).unwrap_or(false)
}
