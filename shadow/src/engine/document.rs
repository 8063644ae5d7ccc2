use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{Patch, Request};
use super::{Limits, MemberTimes, Object, Rejected, Times, delta, differs};

/// One half of a shadow: its state, and the same tree with the time of each leaf.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The members.
    pub state: Object,
    /// When each leaf was written.
    pub metadata: MemberTimes,
}

/// A stored shadow. A section without members does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What the backend wants. A document shares with the one before what an update leaves alone.
    pub desired: Arc<Section>,
    /// What the device says.
    pub reported: Arc<Section>,
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
        patch(&mut next.desired, request.desired(), now);
        patch(&mut next.reported, request.reported(), now);
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
        let metadata = self.desired.metadata.project(&state);
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
                metadata.insert(name.into(), json!(section.metadata));
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

fn patch(section: &mut Arc<Section>, patch: Patch<'_>, now: u64) {
    match patch {
        Patch::Keep => {}
        Patch::Remove => *section = Arc::default(),
        Patch::Merge(members) => {
            let section = Arc::make_mut(section);
            merge(&mut section.state, &mut section.metadata, members, now);
        }
    }
}

fn merge(state: &mut Object, metadata: &mut MemberTimes, patch: &Object, now: u64) {
    for (key, value) in patch {
        if value.is_null() {
            state.remove(key);
            metadata.remove(key);
            continue;
        }
        if let (Value::Object(members), Some(Value::Object(inner))) = (value, state.get_mut(key)) {
            merge(inner, metadata.members_of(key), members, now);
            continue;
        }
        if let Some(value) = without_nulls(value) {
            metadata.insert(key, Times::of(&value, now));
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
