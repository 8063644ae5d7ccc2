use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Object;

/// When each leaf of a value was last written, in epoch seconds: the value's own tree, with a time in the place of each
/// leaf. As JSON it is the metadata of AWS IoT, with `{"timestamp": …}` there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Times {
    /// Of a leaf.
    At(u64),
    /// Of an object.
    Members(MemberTimes),
    /// Of the elements of an array.
    Elements(Vec<Times>),
}

/// The times of an object's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberTimes(
    /// In the order of their names.
    Vec<(String, Times)>,
);

impl Times {
    /// Those of a value that is written now.
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
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Times> {
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    pub(super) fn insert(&mut self, name: &str, times: Times) {
        match self.place(name) {
            Ok(place) => self.0[place].1 = times,
            Err(place) => self.0.insert(place, (name.to_owned(), times)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(place) = self.place(name) {
            self.0.remove(place);
        }
    }

    /// Those of the members of a member that is an object.
    pub(super) fn members_of(&mut self, name: &str) -> &mut Self {
        let place = self.place(name).unwrap_or_else(|place| {
            self.0
                .insert(place, (name.to_owned(), Times::Members(Self::default())));
            place
        });
        let times = &mut self.0[place].1;
        if !matches!(times, Times::Members(_)) {
            *times = Times::Members(Self::default());
        }
        match times {
            Times::Members(members) => members,
            Times::At(_) | Times::Elements(_) => unreachable!("it was just made one"),
        }
    }

    /// The part that belongs to the members of `shape`.
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

/// In any order; of two with one name the last one counts, as in an object.
impl FromIterator<(String, Times)> for MemberTimes {
    fn from_iter<T: IntoIterator<Item = (String, Times)>>(members: T) -> Self {
        let in_order: BTreeMap<String, Times> = members.into_iter().collect();
        Self(in_order.into_iter().collect())
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

/// What stands in metadata: a tree, or the number in a leaf of it.
enum Node {
    Seconds(u64),
    Times(Times),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Nodes;
        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the metadata of a shadow")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Node, E> {
                Ok(Node::Seconds(seconds))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut found: A) -> Result<Node, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = found.next_element()? {
                    elements.push(element);
                }
                Ok(Node::Times(Times::Elements(elements)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut found: A) -> Result<Node, A::Error> {
                let (mut members, mut seconds) = (Vec::new(), None);
                while let Some((name, node)) = found.next_entry::<String, Node>()? {
                    match node {
                        Node::Times(times) => members.push((name, times)),
                        Node::Seconds(at) if name == TIMESTAMP => seconds = Some(at),
                        Node::Seconds(_) => {
                            return Err(A::Error::custom("a number that is no time"));
                        }
                    }
                }
                // A member of that name has a tree of its own.
                match seconds {
                    Some(at) if members.is_empty() => Ok(Node::Times(Times::At(at))),
                    Some(_) => Err(A::Error::custom("a leaf with members")),
                    None => Ok(Node::Times(Times::Members(members.into_iter().collect()))),
                }
            }
        }
        deserializer.deserialize_any(Nodes)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Times(times) => Ok(times),
            Node::Seconds(_) => Err(D::Error::custom("a number outside of a leaf")),
        }
    }
}

impl<'de> Deserialize<'de> for MemberTimes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Times::deserialize(deserializer)? {
            Times::Members(members) => Ok(members),
            Times::At(_) | Times::Elements(_) => Err(D::Error::custom("no object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_come_back_as_they_were() {
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
    fn what_is_no_metadata_is_refused() {
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
