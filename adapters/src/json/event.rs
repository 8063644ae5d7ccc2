//! Lock events in the JSON form of the lock vendor's event schemas. `KeyWriteRequested` has exactly the members of its schema.

use keywright_domain::model::{
    DeviceCode, LockEvent, LockId, LockVersion, NewLock, RecordedEvent, Timestamp, UserId, WriteId,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::members::{
    AsText, HeldKeyJson, InvalidJson, Object, ObjectWriter, optional, optional_text, optional_u64,
    put_slot, read_held_key, read_keys, read_late, read_object, read_reason, read_slot,
    required_text,
};

/// The `data` of an event as JSON. Event types that are Keywright's own have the members of `KeyWriteRequested` and `writeId`;
/// where they apply also `reason`, `code` and `late`.
#[derive(Clone, Copy, Debug)]
pub struct EventData<'a>(pub &'a RecordedEvent);

impl Serialize for EventData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0;
        let mut data = ObjectWriter::start(serializer)?;
        data.put("lockId", recorded.lock.get())?;
        data.put("uuid", recorded.uuid.as_str())?;
        data.put("timestamp", AsText(recorded.time))?;
        match &recorded.event {
            LockEvent::LockCreated(new) => put_new_lock(&mut data, new)?,
            LockEvent::OwnerSet { user } => data.put("userId", user.as_str())?,
            LockEvent::OrganizationSet { organization } => {
                data.put("orgId", organization.as_str())?;
            }
            LockEvent::KeyAdded(held) => {
                put_slot(&mut data, &held.key, held.index)?;
                data.put_some("userId", held.user.as_ref().map(UserId::as_str))?;
            }
            LockEvent::KeyRemoved(slot)
            | LockEvent::KeyWriteRequested(slot)
            | LockEvent::KeyWriteConfirmed { slot, .. }
            | LockEvent::KeyWriteFailed { slot, .. }
            | LockEvent::KeyWriteExpired(slot)
            | LockEvent::KeyWriteSuperseded(slot)
            | LockEvent::KeyWriteWithdrawn(slot) => put_slot(&mut data, &slot.key, slot.index)?,
        }
        if has_write_id(&recorded.event) {
            data.put_some("writeId", recorded.write.map(AsText))?;
        }
        if let LockEvent::KeyWriteFailed { reason, .. } = &recorded.event {
            data.put("reason", reason.name())?;
            data.put_some("code", reason.device_code().map(DeviceCode::as_str))?;
        }
        if let LockEvent::KeyWriteConfirmed { late: true, .. }
        | LockEvent::KeyWriteFailed { late: true, .. } = &recorded.event
        {
            data.put("late", true)?;
        }
        data.end()
    }
}

fn put_new_lock<M: SerializeMap>(
    data: &mut ObjectWriter<M>,
    new: &NewLock,
) -> Result<(), M::Error> {
    data.put_some(
        "serialNumber",
        new.serial_number.as_ref().map(|s| s.as_str()),
    )?;
    if !new.keys.is_empty() {
        let keys: Vec<HeldKeyJson<'_>> = new.keys.iter().map(HeldKeyJson).collect();
        data.put("keys", keys)?;
    }
    data.put_some("ownerId", new.owner.as_ref().map(UserId::as_str))?;
    data.put_some("thingName", new.thing.as_ref().map(|t| t.as_str()))?;
    data.put_some("thingArn", new.thing_arn.as_deref())?;
    data.put_some("keyCapacity", new.key_capacity)
}

/// Reads an event of this type at `version`, without its cause. `write` is the write of the event if its data has no `writeId`; the vendor's
/// schemas have no such member. Unknown members are ignored.
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_event(
    event_type: &str,
    version: LockVersion,
    write: Option<WriteId>,
    data: &Value,
) -> Result<RecordedEvent, InvalidJson> {
    let data = read_object(data, "data")?;
    let event = match event_type {
        "LockCreated" => LockEvent::LockCreated(Box::new(read_new_lock(data)?)),
        "OwnerSet" => LockEvent::OwnerSet {
            user: required_text(data, "userId")?.parse()?,
        },
        "OrganizationSet" => LockEvent::OrganizationSet {
            organization: required_text(data, "orgId")?.parse()?,
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
    let write = match optional_text(data, "writeId")? {
        Some(id) if has_write_id(&event) => Some(id.parse()?),
        _ => write,
    };
    let lock = optional_u64(data, "lockId")?.ok_or(InvalidJson::Member {
        member: "lockId",
        expected: "a positive integer",
    })?;
    let time: Timestamp = required_text(data, "timestamp")?.parse()?;
    Ok(RecordedEvent {
        lock: LockId::new(lock)?,
        uuid: required_text(data, "uuid")?.parse()?,
        version,
        time,
        write,
        cause: None,
        event,
    })
}

/// Whether events of this type have `writeId` in their data: Keywright's own types do.
fn has_write_id(event: &LockEvent) -> bool {
    matches!(
        event,
        LockEvent::KeyWriteConfirmed { .. }
            | LockEvent::KeyWriteFailed { .. }
            | LockEvent::KeyWriteExpired(_)
            | LockEvent::KeyWriteSuperseded(_)
            | LockEvent::KeyWriteWithdrawn(_)
    )
}

fn read_new_lock(data: &Object) -> Result<NewLock, InvalidJson> {
    Ok(NewLock {
        serial_number: optional(data, "serialNumber")?,
        keys: read_keys(data, |key| read_held_key(key, "uuid", "indexNumber"))?,
        owner: optional(data, "ownerId")?,
        thing: optional(data, "thingName")?,
        thing_arn: optional_text(data, "thingArn")?.map(str::to_owned),
        key_capacity: optional_u64(data, "keyCapacity")?,
    })
}
