//! The members that events and locks have in common.

use keywright_domain::event::HeldKey;
use keywright_domain::values::{InvalidValue, KeyIndex};
use serde_json::{Map, Value, json};

pub(super) type Object = Map<String, Value>;

/// JSON that is none of ours, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
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

pub(super) fn held_key(held: &HeldKey) -> Value {
    let mut key = json!({ "uuid": held.key.as_str() });
    if let Some(index) = held.index {
        key["indexNumber"] = json!(index.get());
    }
    if let Some(user) = &held.user {
        key["userId"] = json!(user.as_str());
    }
    key
}

pub(super) fn read_held_key(
    data: &Object,
    key: &'static str,
    index: &'static str,
) -> Result<HeldKey, InvalidJson> {
    Ok(HeldKey {
        key: required(data, key)?.parse()?,
        index: number(data, index)?.map(KeyIndex::new).transpose()?,
        user: optional(data, "userId")?.map(str::parse).transpose()?,
    })
}

/// The elements of `keys`, none where it is absent.
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

pub(super) fn required<'a>(data: &'a Object, member: &'static str) -> Result<&'a str, InvalidJson> {
    optional(data, member)?.ok_or(InvalidJson::Member {
        member,
        expected: "a string",
    })
}

pub(super) fn optional<'a>(
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

pub(super) fn number(data: &Object, member: &'static str) -> Result<Option<u64>, InvalidJson> {
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
