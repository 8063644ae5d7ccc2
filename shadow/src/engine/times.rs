use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Object;

/// When each leaf of a value was last written, in epoch seconds: a tree of the same shape with a time for each leaf. Its JSON is AWS
/// IoT's metadata, in which a leaf is `{"timestamp": …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Times {
    /// The time of a leaf.
    At(u64),
    /// The times of an object.
    Members(MemberTimes),
    /// The times of an array's elements.
    Elements(Vec<Times>),
}

/// The times of an object's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberTimes(
    /// Sorted by name.
    Vec<(String, Times)>,
);

impl Times {
    /// The times of a value that is written at `now`.
    pub fn of(value: &Value, now: u64) -> Self {
        match value {
            Value::Object(members) => {
                let times = members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value, now)));
                Self::Members(times.collect())
            }
            Value::Array(elements) => {
                Self::Elements(elements.iter().map(|value| Self::of(value, now)).collect())
            }
            _ => Self::At(now),
        }
    }
}

impl MemberTimes {
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Times> {
        self.position(name).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn insert(&mut self, name: &str, times: Times) {
        match self.position(name) {
            Ok(at) => self.0[at].1 = times,
            Err(at) => self.0.insert(at, (name.to_owned(), times)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.0.remove(at);
        }
    }

    /// The times of a member that is an object; creates them if they are missing or of another kind.
    pub(super) fn members_of(&mut self, name: &str) -> &mut Self {
        let at = self.position(name).unwrap_or_else(|at| {
            self.0
                .insert(at, (name.to_owned(), Times::Members(Self::default())));
            at
        });
        let times = &mut self.0[at].1;
        if !matches!(times, Times::Members(_)) {
            *times = Times::Members(Self::default());
        }
        match times {
            Times::Members(members) => members,
            Times::At(_) | Times::Elements(_) => unreachable!("replaced by members above"),
        }
    }

    /// The times of the members that `shape` has.
    pub fn project(&self, shape: &Object) -> Self {
        let members = shape.iter().filter_map(|(name, value)| {
            let part = match (value, self.get(name)?) {
                (Value::Object(shape), Times::Members(found)) => {
                    Times::Members(found.project(shape))
                }
                (_, found) => found.clone(),
            };
            Some((name.clone(), part))
        });
        members.collect()
    }
}

/// Members in any order. If a name occurs twice, the last one counts, as in a JSON object.
impl FromIterator<(String, Times)> for MemberTimes {
    fn from_iter<T: IntoIterator<Item = (String, Times)>>(members: T) -> Self {
        let sorted: BTreeMap<String, Times> = members.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

const TIMESTAMP: &str = "timestamp";

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(seconds) => serializer.collect_map([(TIMESTAMP, seconds)]),
            Self::Members(members) => members.serialize(serializer),
            Self::Elements(elements) => elements.serialize(serializer),
        }
    }
}

impl Serialize for MemberTimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, times)| (name, times)))
    }
}

/// A JSON value of metadata: a tree, or the number inside a leaf.
enum Node {
    Seconds(u64),
    Times(Times),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the metadata of a shadow")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Node, E> {
                Ok(Node::Seconds(seconds))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Node, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    elements.push(element);
                }
                Ok(Node::Times(Times::Elements(elements)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
                let (mut members, mut seconds) = (Vec::new(), None);
                while let Some((name, node)) = object.next_entry::<String, Node>()? {
                    match node {
                        Node::Times(times) => members.push((name, times)),
                        Node::Seconds(at) if name == TIMESTAMP => seconds = Some(at),
                        Node::Seconds(_) => {
                            return Err(A::Error::custom("a number that is not a timestamp"));
                        }
                    }
                }
                // A state may have a member called `timestamp`, whose metadata is a tree and not a number.
                match seconds {
                    Some(at) if members.is_empty() => Ok(Node::Times(Times::At(at))),
                    Some(_) => Err(A::Error::custom("a leaf that has members")),
                    None => Ok(Node::Times(Times::Members(members.into_iter().collect()))),
                }
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Times(times) => Ok(times),
            Node::Seconds(_) => Err(D::Error::custom("a number outside a leaf")),
        }
    }
}

impl<'de> Deserialize<'de> for MemberTimes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Times::deserialize(deserializer)? {
            Times::Members(members) => Ok(members),
            Times::At(_) | Times::Elements(_) => Err(D::Error::custom("not an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_survive_json() {
        let value = json!({
            "timestamp": 7, "a": { "timestamp": { "timestamp": null }, "b": [1, [2], { "c": 3 }] }, "e": {}, "f": [],
        });
        let times = Times::of(&value, 9);
        let text = serde_json::to_string(&times).expect("JSON");
        assert_eq!(serde_json::from_str::<Times>(&text).expect("times"), times);
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON"),
            json!(times)
        );
        let leaf = json!({ "timestamp": 9 });
        assert_eq!(json!(times)["timestamp"], leaf);
        assert_eq!(json!(times)["a"]["timestamp"]["timestamp"], leaf);
        assert_eq!(json!(times)["a"]["b"], json!([leaf, [leaf], { "c": leaf }]));
    }

    #[test]
    fn rejects_other_json() {
        for text in [
            r#"{"a":1}"#,
            r#"{"timestamp":1,"a":{"timestamp":1}}"#,
            r#"{"a":"x"}"#,
            "7",
            r#"{"a":{"timestamp":-1}}"#,
        ] {
            assert!(serde_json::from_str::<Times>(text).is_err(), "{text}");
        }
    }
}
