//! The folded state of a lock, which stores keep so that loading a lock does not read its whole stream.

use keywright_domain::model::{Lock, LockId, LockKey, LockVersion, Timestamp, UnsettledWrite};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::members::{
    AsText, InvalidJson, Object, ObjectWriter, optional, optional_u64, read_held_key, read_keys,
    read_object, required_number, required_text,
};

/// Serializes a lock without its id, which is the key of its row.
#[derive(Clone, Copy, Debug)]
pub struct LockState<'a>(pub &'a Lock);

impl Serialize for LockState<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lock = self.0;
        let mut state = ObjectWriter::start(serializer)?;
        state.put("uuid", lock.uuid.as_str())?;
        state.put("version", lock.version.0)?;
        state.put("time", lock.time.as_millis())?;
        state.put_some(
            "serialNumber",
            lock.serial_number.as_ref().map(|t| t.as_str()),
        )?;
        state.put_some("ownerId", lock.owner.as_ref().map(|t| t.as_str()))?;
        state.put_some(
            "organizationId",
            lock.organization.as_ref().map(|t| t.as_str()),
        )?;
        state.put_some("thingName", lock.thing.as_ref().map(|t| t.as_str()))?;
        state.put_some("keyCapacity", lock.key_capacity)?;
        if !lock.keys.is_empty() {
            let keys: Vec<LockKeyJson<'_>> = lock.keys.iter().map(LockKeyJson).collect();
            state.put("keys", keys)?;
        }
        if !lock.unsettled.is_empty() {
            let unsettled = lock.unsettled.iter();
            let pairs: Vec<_> = unsettled
                .map(|write| (AsText(&write.id), write.requested.0))
                .collect();
            state.put("unsettled", pairs)?;
        }
        state.end()
    }
}

/// The JSON of a [`LockKey`]. `written` is the version of the `KeyWriteRequested` whose write stored the key.
struct LockKeyJson<'a>(&'a LockKey);

impl Serialize for LockKeyJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut key = ObjectWriter::start(serializer)?;
        key.put_held(&self.0.held)?;
        key.put_some("written", self.0.requested.map(|version| version.0))?;
        key.end()
    }
}

/// Reads the JSON of [`LockState`].
///
/// # Errors
/// See [`InvalidJson`].
pub fn read_lock_state(id: LockId, state: &Value) -> Result<Lock, InvalidJson> {
    let state = read_object(state, "state")?;
    Ok(Lock {
        id,
        uuid: required_text(state, "uuid")?.parse()?,
        serial_number: optional(state, "serialNumber")?,
        owner: optional(state, "ownerId")?,
        organization: optional(state, "organizationId")?,
        thing: optional(state, "thingName")?,
        key_capacity: optional_u64(state, "keyCapacity")?,
        keys: read_keys(state, read_lock_key)?,
        unsettled: read_unsettled(state)?,
        version: LockVersion(required_number(state, "version")?),
        time: Timestamp::from_millis(required_number(state, "time")?),
    })
}

fn read_lock_key(key: &Object) -> Result<LockKey, InvalidJson> {
    Ok(LockKey {
        held: read_held_key(key, "uuid", "indexNumber")?,
        requested: optional_u64(key, "written")?.map(LockVersion),
    })
}

fn read_unsettled(state: &Object) -> Result<Vec<UnsettledWrite>, InvalidJson> {
    let invalid = || InvalidJson::Member {
        member: "unsettled",
        expected: "an array of [write id, version] pairs",
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
            let requested = LockVersion(version);
            Ok(UnsettledWrite { id, requested })
        })
        .collect()
}
