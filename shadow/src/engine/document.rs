use serde_json::{Value, json};

use super::request::{Patch, Request};
use super::{Limits, Object, Rejected, delta, differs, project};

/// One half of a shadow: its state, and the same tree with the time of each leaf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The members.
    pub state: Object,
    /// A `{"timestamp": epoch seconds}` for each leaf.
    pub metadata: Object,
}

/// A stored shadow. A section without members does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What the backend wants.
    pub desired: Section,
    /// What the device says.
    pub reported: Section,
    /// From 1, one more with every accepted update.
    pub version: u64,
}

impl Document {
    /// The document after an update at `now` (epoch seconds).
    ///
    /// # Errors
    /// Another version than the request expects (409), or too large (413). A missing shadow counts as
    /// version 0, a deleted one keeps its count.
    pub fn update(&self, request: &Request, limits: &Limits, now: u64) -> Result<Self, Rejected> {
        if request
            .version
            .is_some_and(|expected| expected != self.version)
        {
            return Err(Rejected::new(
                409,
                "Version conflict",
                request.client_token.clone(),
            ));
        }
        let mut next = self.clone();
        next.version += 1;
        next.desired.patch(request.desired(), now);
        next.reported.patch(request.reported(), now);
        if next.bytes() > limits.max_bytes {
            let text = "The payload exceeds the maximum size allowed";
            return Err(Rejected::new(413, text, request.client_token.clone()));
        }
        Ok(next)
    }

    /// The state alone, as compact JSON; metadata is free.
    fn bytes(&self) -> usize {
        let length = |section: &Section| match section.state.is_empty() {
            true => 0,
            false => json_length(&section.state),
        };
        length(&self.desired) + length(&self.reported)
    }

    /// What `desired` wants and `reported` does not say.
    pub fn delta(&self) -> Object {
        delta(&self.desired.state, &self.reported.state)
    }

    /// Whether there is any such thing.
    pub fn differs(&self) -> bool {
        differs(&self.desired.state, &self.reported.state)
    }

    /// The body of a get answer, without `clientToken`.
    pub fn get_body(&self, now: u64) -> Value {
        let mut body = self.stored_body();
        let delta = self.delta();
        if !delta.is_empty() {
            body["state"]["delta"] = delta.into();
        }
        body["timestamp"] = json!(now);
        body
    }

    /// The body of a delta message; `None` where there is no difference.
    pub fn delta_body(&self, now: u64) -> Option<Value> {
        let state = self.delta();
        if state.is_empty() {
            return None;
        }
        let metadata = project(&self.desired.metadata, &state);
        Some(json!({
            "version": self.version, "timestamp": now, "state": state, "metadata": metadata,
        }))
    }

    /// State, metadata and version, as `previous` and `current` of a documents message show them.
    pub fn stored_body(&self) -> Value {
        let (mut state, mut metadata) = (Object::new(), Object::new());
        for (name, section) in [("desired", &self.desired), ("reported", &self.reported)] {
            if !section.state.is_empty() {
                state.insert(name.into(), section.state.clone().into());
                metadata.insert(name.into(), section.metadata.clone().into());
            }
        }
        json!({ "state": state, "metadata": metadata, "version": self.version })
    }
}

/// The bytes of an object as compact JSON.
fn json_length(object: &Object) -> usize {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // Neither the texts of an object nor a counter can fail.
    let _ = serde_json::to_writer(&mut counted, object);
    counted.0
}

impl Section {
    fn patch(&mut self, patch: Patch<'_>, now: u64) {
        match patch {
            Patch::Keep => {}
            Patch::Remove => *self = Self::default(),
            Patch::Merge(members) => merge(&mut self.state, &mut self.metadata, members, now),
        }
    }
}

fn merge(state: &mut Object, metadata: &mut Object, patch: &Object, now: u64) {
    for (key, value) in patch {
        if value.is_null() {
            state.remove(key);
            metadata.remove(key);
            continue;
        }
        if let (Value::Object(members), Some(Value::Object(inner))) = (value, state.get_mut(key)) {
            let times = metadata.entry(key.clone()).or_insert_with(|| json!({}));
            if let Value::Object(times) = times {
                merge(inner, times, members, now);
            }
            continue;
        }
        if let Some(value) = without_nulls(value) {
            metadata.insert(key.clone(), stamp(&value, now));
            state.insert(key.clone(), value);
        }
    }
}

/// The value without its null members; `None` for an object that held nothing else.
fn without_nulls(value: &Value) -> Option<Value> {
    let Value::Object(members) = value else {
        return Some(value.clone());
    };
    let kept: Object = members
        .iter()
        .filter(|(_, v)| !v.is_null())
        .filter_map(|(k, v)| without_nulls(v).map(|v| (k.clone(), v)))
        .collect();
    (members.is_empty() || !kept.is_empty()).then_some(kept.into())
}

/// The metadata of a value: a time for each leaf and each element of an array.
pub(super) fn stamp(value: &Value, now: u64) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(k, v)| (k.clone(), stamp(v, now)))
            .collect::<Object>()
            .into(),
        Value::Array(elements) => elements.iter().map(|v| stamp(v, now)).collect(),
        _ => json!({ "timestamp": now }),
    }
}
