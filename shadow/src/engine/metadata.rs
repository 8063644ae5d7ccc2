use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Object;

/// When each leaf of a value was last written, in epoch seconds: a tree of the same shape with a time for each leaf. Its JSON is AWS
/// IoT's metadata, in which a leaf is `{"timestamp": …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The time of a leaf.
    Leaf(u64),
    /// The metadata of an object.
    Object(ObjectMetadata),
    /// The metadata of an array's elements.
    Array(Vec<Metadata>),
}

/// The metadata of an object's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectMetadata(
    /// Sorted by name.
    Vec<(String, Metadata)>,
);

impl Metadata {
    /// The metadata of a value that is written at `now`.
    pub fn of(value: &Value, now: u64) -> Self {
        match value {
            Value::Object(members) => {
                let metadata = members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value, now)));
                Self::Object(metadata.collect())
            }
            Value::Array(elements) => {
                Self::Array(elements.iter().map(|value| Self::of(value, now)).collect())
            }
            _ => Self::Leaf(now),
        }
    }
}

impl ObjectMetadata {
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Metadata> {
        self.position(name).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn insert(&mut self, name: &str, metadata: Metadata) {
        match self.position(name) {
            Ok(at) => self.0[at].1 = metadata,
            Err(at) => self.0.insert(at, (name.to_owned(), metadata)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.0.remove(at);
        }
    }

    /// The metadata of a member that is an object; created if it is missing or not that of an object.
    pub(super) fn members_of(&mut self, name: &str) -> &mut Self {
        let at = self.position(name).unwrap_or_else(|at| {
            self.0
                .insert(at, (name.to_owned(), Metadata::Object(Self::default())));
            at
        });
        let metadata = &mut self.0[at].1;
        if !matches!(metadata, Metadata::Object(_)) {
            *metadata = Metadata::Object(Self::default());
        }
        match metadata {
            Metadata::Object(members) => members,
            Metadata::Leaf(_) | Metadata::Array(_) => unreachable!("replaced by members above"),
        }
    }

    /// The metadata of the members that `shape` has.
    pub fn project(&self, shape: &Object) -> Self {
        let members = shape.iter().filter_map(|(name, value)| {
            let part = match (value, self.get(name)?) {
                (Value::Object(shape), Metadata::Object(found)) => {
                    Metadata::Object(found.project(shape))
                }
                (_, found) => found.clone(),
            };
            Some((name.clone(), part))
        });
        members.collect()
    }
}

/// Members in any order. If a name occurs twice, the last one counts, as in a JSON object.
impl FromIterator<(String, Metadata)> for ObjectMetadata {
    fn from_iter<T: IntoIterator<Item = (String, Metadata)>>(members: T) -> Self {
        let sorted: BTreeMap<String, Metadata> = members.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

const TIMESTAMP: &str = "timestamp";

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(seconds) => serializer.collect_map([(TIMESTAMP, seconds)]),
            Self::Object(members) => members.serialize(serializer),
            Self::Array(elements) => elements.serialize(serializer),
        }
    }
}

impl Serialize for ObjectMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, metadata)| (name, metadata)))
    }
}

/// A JSON value of metadata: a tree, or the number inside a leaf.
enum Node {
    Seconds(u64),
    Tree(Metadata),
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
                Ok(Node::Tree(Metadata::Array(elements)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
                let (mut members, mut seconds) = (Vec::new(), None);
                while let Some((name, node)) = object.next_entry::<String, Node>()? {
                    match node {
                        Node::Tree(metadata) => members.push((name, metadata)),
                        Node::Seconds(at) if name == TIMESTAMP => seconds = Some(at),
                        Node::Seconds(_) => {
                            return Err(A::Error::custom("a number that is not a timestamp"));
                        }
                    }
                }
                // A state may have a member called `timestamp`, whose metadata is a tree and not a number.
                match seconds {
                    Some(at) if members.is_empty() => Ok(Node::Tree(Metadata::Leaf(at))),
                    Some(_) => Err(A::Error::custom("a leaf that has members")),
                    None => Ok(Node::Tree(Metadata::Object(members.into_iter().collect()))),
                }
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Tree(metadata) => Ok(metadata),
            Node::Seconds(_) => Err(D::Error::custom("a number outside a leaf")),
        }
    }
}

impl<'de> Deserialize<'de> for ObjectMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Metadata::deserialize(deserializer)? {
            Metadata::Object(members) => Ok(members),
            Metadata::Leaf(_) | Metadata::Array(_) => Err(D::Error::custom("not an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_survives_json() {
        let value = json!({
            "timestamp": 7, "a": { "timestamp": { "timestamp": null }, "b": [1, [2], { "c": 3 }] }, "e": {}, "f": [],
        });
        let metadata = Metadata::of(&value, 9);
        let text = serde_json::to_string(&metadata).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Metadata>(&text).expect("metadata"),
            metadata
        );
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON"),
            json!(metadata)
        );
        let leaf = json!({ "timestamp": 9 });
        assert_eq!(json!(metadata)["timestamp"], leaf);
        assert_eq!(json!(metadata)["a"]["timestamp"]["timestamp"], leaf);
        assert_eq!(
            json!(metadata)["a"]["b"],
            json!([leaf, [leaf], { "c": leaf }])
        );
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
            assert!(serde_json::from_str::<Metadata>(text).is_err(), "{text}");
        }
    }
}
