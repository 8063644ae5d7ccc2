//! The document of a shadow, and how an update changes it: the check of the version, the merge, and the limits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{Patch, Request};
use super::{Limits, Metadata, Object, ObjectMetadata, Rejected, delta, has_delta};

/// The `desired` or the `reported` section of a shadow: its state, and metadata of the same shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The values.
    pub state: Object,
    /// When each leaf of the state was last written.
    pub metadata: ObjectMetadata,
}

/// The document of a shadow. A section whose state is empty counts as missing. Documents share the sections that an update does not
/// change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The state that the backend wants.
    pub desired: Arc<Section>,
    /// The state that the device reports.
    pub reported: Arc<Section>,
    /// Starts at 1 and grows by 1 with each accepted update.
    pub version: u64,
}

impl Document {
    /// The document after an update at `now` (epoch seconds).
    ///
    /// # Errors
    /// The request expects another version (409), or the new document is too large (413). A missing shadow has version 0; a deleted
    /// one keeps its version for a while.
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
        apply_patch(&mut next.desired, request.desired(), now);
        apply_patch(&mut next.reported, request.reported(), now);
        if next.state_bytes() > limits.max_bytes {
            let text = "The payload exceeds the maximum size allowed";
            return Err(Rejected::new(413, text, request.client_token.clone()));
        }
        Ok(next)
    }

    /// The size of both states as compact JSON, in bytes. Metadata does not count towards the limit.
    fn state_bytes(&self) -> usize {
        let length = |section: &Section| match section.state.is_empty() {
            true => 0,
            false => json_length(&section.state),
        };
        length(&self.desired) + length(&self.reported)
    }

    /// The members of `desired` that `reported` does not match.
    pub fn delta(&self) -> Object {
        delta(&self.desired.state, &self.reported.state)
    }

    /// Whether the delta is not empty.
    pub fn has_delta(&self) -> bool {
        has_delta(&self.desired.state, &self.reported.state)
    }

    /// The body of the answer to a get request at `now` (epoch seconds), without `clientToken`.
    pub fn get_body(&self, now: u64) -> Value {
        let mut body = self.stored_body();
        let delta = self.delta();
        if !delta.is_empty() {
            body["state"]["delta"] = delta.into();
        }
        body["timestamp"] = json!(now);
        body
    }

    /// The body of a delta message at `now` (epoch seconds), without `clientToken`. `None`: the delta is empty.
    pub fn delta_body(&self, now: u64) -> Option<Value> {
        let state = self.delta();
        if state.is_empty() {
            return None;
        }
        let metadata = self.desired.metadata.project(&state);
        Some(json!({
            "version": self.version, "timestamp": now, "state": state, "metadata": metadata,
        }))
    }

    /// State, metadata and version, as in `previous` and `current` of a documents message.
    pub fn stored_body(&self) -> Value {
        let (mut state, mut metadata) = (Object::new(), Object::new());
        for (name, section) in [("desired", &self.desired), ("reported", &self.reported)] {
            if !section.state.is_empty() {
                state.insert(name.into(), section.state.clone().into());
                metadata.insert(name.into(), json!(section.metadata));
            }
        }
        json!({ "state": state, "metadata": metadata, "version": self.version })
    }
}

/// The size of an object as compact JSON, in bytes.
fn json_length(object: &Object) -> usize {
    struct ByteCounter(usize);
    impl std::io::Write for ByteCounter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = ByteCounter(0);
    // Neither serializing an object nor counting can fail.
    let _ = serde_json::to_writer(&mut counter, object);
    counter.0
}

fn apply_patch(section: &mut Arc<Section>, patch: Patch<'_>, now: u64) {
    match patch {
        Patch::Keep => {}
        Patch::Remove => *section = Arc::default(),
        Patch::Merge(members) => {
            let section = Arc::make_mut(section);
            merge(&mut section.state, &mut section.metadata, members, now);
        }
    }
}

fn merge(state: &mut Object, metadata: &mut ObjectMetadata, patch: &Object, now: u64) {
    for (key, value) in patch {
        if value.is_null() {
            state.remove(key);
            metadata.remove(key);
            continue;
        }
        if let (Value::Object(members), Some(Value::Object(nested))) = (value, state.get_mut(key)) {
            merge(nested, metadata.members_of(key), members, now);
            continue;
        }
        if let Some(value) = without_nulls(value) {
            metadata.insert(key, Metadata::of(&value, now));
            state.insert(key.clone(), value);
        }
    }
}

/// The value without null members. `None`: an object that had no other members.
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
