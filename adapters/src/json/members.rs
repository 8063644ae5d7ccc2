//! Writes JSON objects member by member, and reads members by type.

use std::fmt::Display;
use std::str::FromStr;

use keywright_domain::model::{
    DeviceCode, FailureReason, HeldKey, InvalidValue, KeyIndex, KeySlot, KeyUuid,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// Why JSON is not an event, a lock, a write or an idempotency record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// A member is missing or has another JSON type.
    #[error("`{member}` must be {expected}")]
    Member {
        /// Its name.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The value of a member is invalid.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// The type of the event is unknown.
    #[error("`type` is not a known event type")]
    Type,
}

/// Writes a JSON object member by member.
pub(super) struct ObjectWriter<M>(M);

impl<M: SerializeMap> ObjectWriter<M> {
    pub(super) fn start<S>(serializer: S) -> Result<Self, S::Error>
    where
        S: Serializer<SerializeMap = M>,
    {
        serializer.serialize_map(None).map(Self)
    }

    pub(super) fn put(&mut self, member: &str, value: impl Serialize) -> Result<(), M::Error> {
        self.0.serialize_entry(member, &value)
    }

    /// Writes a member if there is a value.
    pub(super) fn put_some(
        &mut self,
        member: &str,
        value: Option<impl Serialize>,
    ) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(member, value))
    }

    pub(super) fn put_held(&mut self, held: &HeldKey) -> Result<(), M::Error> {
        self.put("uuid", held.key.as_str())?;
        self.put_some("indexNumber", held.index.map(KeyIndex::get))?;
        self.put_some("userId", held.user.as_ref().map(|user| user.as_str()))
    }

    pub(super) fn end(self) -> Result<M::Ok, M::Error> {
        self.0.end()
    }
}

/// Serializes the `Display` text of a value.
pub(super) struct AsText<T>(pub(super) T);

impl<T: Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A key in the list `keys` of `LockCreated`.
pub(super) struct HeldKeyJson<'a>(pub(super) &'a HeldKey);

impl Serialize for HeldKeyJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut key = ObjectWriter::start(serializer)?;
        key.put_held(self.0)?;
        key.end()
    }
}

pub(super) fn read_held_key(
    data: &Object,
    key_member: &'static str,
    index_member: &'static str,
) -> Result<HeldKey, InvalidJson> {
    Ok(HeldKey {
        key: required_text(data, key_member)?.parse()?,
        index: read_index(data, index_member)?,
        user: optional(data, "userId")?,
    })
}

/// The elements of `keys`; none if it is missing or null.
pub(super) fn read_keys<T>(
    data: &Object,
    read: impl Fn(&Object) -> Result<T, InvalidJson>,
) -> Result<Vec<T>, InvalidJson> {
    let expected = "an array of objects";
    let invalid = InvalidJson::Member {
        member: "keys",
        expected,
    };
    match data.get("keys") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(keys)) => keys
            .iter()
            .map(|key| read(key.as_object().ok_or_else(|| invalid.clone())?))
            .collect(),
        Some(_) => Err(invalid),
    }
}

pub(super) fn required_text<'a>(
    data: &'a Object,
    member: &'static str,
) -> Result<&'a str, InvalidJson> {
    optional_text(data, member)?.ok_or(InvalidJson::Member {
        member,
        expected: "a string",
    })
}

pub(super) fn optional_text<'a>(
    data: &'a Object,
    member: &'static str,
) -> Result<Option<&'a str>, InvalidJson> {
    match data.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidJson::Member {
            member,
            expected: "a string",
        }),
    }
}

/// The value of a member that is a text.
pub(super) fn optional<T: FromStr<Err = InvalidValue>>(
    data: &Object,
    member: &'static str,
) -> Result<Option<T>, InvalidJson> {
    let text = optional_text(data, member)?;
    Ok(text.map(str::parse).transpose()?)
}

pub(super) fn optional_u64(
    data: &Object,
    member: &'static str,
) -> Result<Option<u64>, InvalidJson> {
    match data.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let expected = "an integer of at least 0";
            value
                .as_u64()
                .map(Some)
                .ok_or(InvalidJson::Member { member, expected })
        }
    }
}

pub(super) fn put_slot<M: SerializeMap>(
    data: &mut ObjectWriter<M>,
    key: &KeyUuid,
    index: Option<KeyIndex>,
) -> Result<(), M::Error> {
    data.put("keyUuid", key.as_str())?;
    data.put_some("keyIndexNumber", index.map(KeyIndex::get))
}

pub(super) fn read_slot(data: &Object) -> Result<KeySlot, InvalidJson> {
    Ok(KeySlot {
        key: required_text(data, "keyUuid")?.parse()?,
        index: read_index(data, "keyIndexNumber")?,
    })
}

pub(super) fn read_reason(data: &Object) -> Result<FailureReason, InvalidJson> {
    if let Some(code) = optional_text(data, "code")? {
        return Ok(FailureReason::DeviceError(DeviceCode::new(code)?));
    }
    let unknown = InvalidJson::Member {
        member: "reason",
        expected: "a known failure reason",
    };
    required_text(data, "reason")?.parse().map_err(|()| unknown)
}

pub(super) fn required_number(state: &Object, member: &'static str) -> Result<u64, InvalidJson> {
    optional_u64(state, member)?.ok_or(InvalidJson::Member {
        member,
        expected: "an integer of at least 0",
    })
}

pub(super) fn read_index(
    data: &Object,
    member: &'static str,
) -> Result<Option<KeyIndex>, InvalidJson> {
    let index = optional_u64(data, member)?.map(KeyIndex::new);
    Ok(index.transpose()?)
}

pub(super) fn read_object<'a>(
    value: &'a Value,
    member: &'static str,
) -> Result<&'a Object, InvalidJson> {
    let expected = "an object";
    let invalid = InvalidJson::Member { member, expected };
    value.as_object().ok_or(invalid)
}

pub(super) fn read_late(data: &Object) -> bool {
    data.get("late").and_then(Value::as_bool).unwrap_or(false)
}
