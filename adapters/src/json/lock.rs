//! A folded lock as stores keep it beside its events, so that loading one does not read its whole stream.

use keywright_domain::lock::{Lock, LockKey};
use keywright_domain::values::{LockId, LockVersion, Timestamp};
use serde_json::{Value, json};

use super::members::{
    InvalidJson, Object, held_key, number, optional, read_held_key, read_keys, required,
};

/// The lock without its id, which is the key of its row.
pub fn lock_state(lock: &Lock) -> Value {
    let mut state = json!({
        "uuid": lock.uuid.as_str(),
        "version": lock.version.0,
        "time": lock.time.as_millis(),
    });
    let texts = [
        (
            "serialNumber",
            lock.serial_number.as_ref().map(|t| t.as_str()),
        ),
        ("ownerId", lock.owner.as_ref().map(|t| t.as_str())),
        (
            "organizationId",
            lock.organization.as_ref().map(|t| t.as_str()),
        ),
        ("thingName", lock.thing.as_ref().map(|t| t.as_str())),
    ];
    for (member, text) in texts {
        if let Some(text) = text {
            state[member] = json!(text);
        }
    }
    if let Some(capacity) = lock.key_capacity {
        state["keyCapacity"] = json!(capacity);
    }
    if !lock.keys.is_empty() {
        state["keys"] = lock.keys.iter().map(lock_key).collect();
    }
    if !lock.unsettled.is_empty() {
        let unsettled = lock.unsettled.iter();
        state["unsettled"] = unsettled
            .map(|(id, version)| json!([id.to_string(), version.0]))
            .collect();
    }
    state
}

/// Reads what [`lock_state`] wrote.
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_lock_state(id: LockId, state: &Value) -> Result<Lock, InvalidJson> {
    let state = state.as_object().ok_or(InvalidJson::Member {
        member: "state",
        expected: "an object",
    })?;
    Ok(Lock {
        id,
        uuid: required(state, "uuid")?.parse()?,
        serial_number: optional(state, "serialNumber")?
            .map(str::parse)
            .transpose()?,
        owner: optional(state, "ownerId")?.map(str::parse).transpose()?,
        organization: optional(state, "organizationId")?
            .map(str::parse)
            .transpose()?,
        thing: optional(state, "thingName")?.map(str::parse).transpose()?,
        key_capacity: number(state, "keyCapacity")?,
        keys: read_keys(state, read_lock_key)?,
        unsettled: read_unsettled(state)?,
        version: LockVersion(required_number(state, "version")?),
        time: Timestamp::from_millis(required_number(state, "time")?),
    })
}

fn lock_key(key: &LockKey) -> Value {
    let mut value = held_key(&key.held);
    if let Some(written) = key.written {
        value["written"] = json!(written.0);
    }
    value
}

fn read_lock_key(key: &Object) -> Result<LockKey, InvalidJson> {
    Ok(LockKey {
        held: read_held_key(key, "uuid", "indexNumber")?,
        written: number(key, "written")?.map(LockVersion),
    })
}

fn read_unsettled(
    state: &Object,
) -> Result<Vec<(keywright_domain::values::WriteId, LockVersion)>, InvalidJson> {
    let invalid = || InvalidJson::Member {
        member: "unsettled",
        expected: "an array of write ids and versions",
    };
    let Some(unsettled) = state.get("unsettled") else {
        return Ok(Vec::new());
    };
    let pairs = unsettled.as_array().ok_or_else(invalid)?;
    pairs
        .iter()
        .map(|pair| {
            let id = pair[0].as_str().ok_or_else(invalid)?.parse()?;
            let version = pair[1].as_u64().ok_or_else(invalid)?;
            Ok((id, LockVersion(version)))
        })
        .collect()
}

fn required_number(state: &Object, member: &'static str) -> Result<u64, InvalidJson> {
    number(state, member)?.ok_or(InvalidJson::Member {
        member,
        expected: "an integer of at least 0",
    })
}
