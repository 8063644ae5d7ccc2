//! Reads the vectors, and compares outcomes with those that the vectors expect.

use std::collections::BTreeSet;
use std::sync::Arc;

use keywright_shadow::engine::{Document, Object, Section};
use keywright_shadow::{Limits, Record, ShadowName};
use serde_json::{Value, json};

/// The known behaviour of AWS IoT.
const AWS_VECTORS: &str = include_str!("aws-iot-vectors.jsonl");

/// Further behaviour that Keywright relies on.
const KEYWRIGHT_VECTORS: &str = include_str!("keywright-vectors.jsonl");

/// How a vector is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    InProcess,
    Rest,
    Mqtt,
}

/// The result of running a vector.
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// Topic suffixes and bodies.
    pub(crate) published: Vec<(String, Value)>,
    pub(crate) before: Option<Arc<Document>>,
    pub(crate) after: Option<Arc<Document>>,
}

pub(crate) enum Answer {
    Accepted(Value),
    /// The members of the rejection that the channel shows (`code`, `message`, `clientToken`), and the REST error type if there is
    /// one.
    Rejected(Value, Option<String>),
}

/// The vectors with this `confidence` (how certain it is that AWS IoT behaves so: high, medium or low) that can be run over a
/// channel.
pub(crate) fn vectors(confidence: &str, channel: Channel) -> Vec<Value> {
    let all = AWS_VECTORS
        .lines()
        .chain(KEYWRIGHT_VECTORS.lines())
        .map(|line| serde_json::from_str::<Value>(line).expect("a vector"));
    let fits = |vector: &Value| match vector["channel"].as_str() {
        Some("rest") => channel != Channel::Mqtt,
        Some("mqtt") => channel != Channel::Rest,
        _ => true,
    };
    all.filter(|v| v["confidence"] == confidence && fits(v))
        .collect()
}

/// The same vector with another thing, shadow name, attribute keys, times and client token, to detect hard-coded answers.
pub(crate) fn varied(vector: &Value) -> Value {
    let token = vector["payload"]["clientToken"]
        .as_str()
        .filter(|t| t.len() < 64);
    let mut text = vector
        .to_string()
        .replace("lock-1", "Door:7_b")
        .replace("\"shadow\":\"keys\"", "\"shadow\":\"k:2_\"")
        .replace("~keys", "~k:2_")
        // An error text names the attribute `foo`, which `with_other_keys` renames to `gpp`.
        .replace("node: 'foo'", "node: 'gpp'")
        .replace("17000", "18110")
        .replace("16999", "18109");
    if let Some(token) = token {
        text = text.replace(&format!("\"{token}\""), "\"another.token\"");
    }
    let mut varied: Value = serde_json::from_str(&text).expect("still a vector");
    for member in ["initial", "payload", "expect"] {
        varied[member] = with_other_keys(&varied[member]);
    }
    varied
}

/// The keys of the protocol and of the vectors; every other key is an attribute of a device.
const RESERVED_KEYS: &[&str] = &[
    "accepted",
    "clientToken",
    "code",
    "current",
    "deleted",
    "deleted_at",
    "delta",
    "desired",
    "documents",
    "message",
    "metadata",
    "previous",
    "rejected",
    "reported",
    "rest_error",
    "rest_status",
    "result",
    "results",
    "state",
    "stored",
    "timestamp",
    "topics",
    "version",
];

/// Replaces attribute keys with others of the same length, so that documents keep their size.
fn with_other_keys(value: &Value) -> Value {
    let other = |key: &String| match RESERVED_KEYS.contains(&key.as_str()) {
        true => key.clone(),
        false => key.chars().map(rotated).collect(),
    };
    match value {
        Value::Object(o) => o
            .iter()
            .map(|(k, v)| (other(k), with_other_keys(v)))
            .collect::<Object>()
            .into(),
        Value::Array(a) => a.iter().map(with_other_keys).collect(),
        other => other.clone(),
    }
}

fn rotated(c: char) -> char {
    match c {
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from(c as u8 + 1),
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        other => other,
    }
}

pub(crate) fn thing(vector: &Value) -> &str {
    vector["thing"].as_str().expect("a thing")
}

pub(crate) fn shadow_name(vector: &Value) -> ShadowName {
    vector["shadow"]
        .as_str()
        .map_or(ShadowName::Classic, |n| ShadowName::Named(n.into()))
}

pub(crate) fn now(vector: &Value) -> u64 {
    vector["now"].as_u64().expect("a time")
}

/// The request body of a vector.
pub(crate) fn body(vector: &Value) -> String {
    match (&vector["payload_raw"], &vector["payload"]) {
        (Value::String(raw), _) | (_, Value::String(raw)) => raw.clone(),
        (_, Value::Null) => String::new(),
        (_, payload) => payload.to_string(),
    }
}

pub(crate) fn limits(vector: &Value) -> Limits {
    let mut limits = Limits::default();
    if let Some(levels) = vector["config"]["max_levels"].as_u64() {
        limits.max_levels = usize::try_from(levels).expect("a small number");
    }
    limits
}

/// The record before the request.
pub(crate) fn initial_record(vector: &Value) -> Option<Record> {
    // Leaves of the initial document are 100 s old, unless the vector gives their metadata.
    record(&vector["initial"], now(vector) - 100)
}

fn record(initial: &Value, leaf_time: u64) -> Option<Record> {
    let version = initial.get("version")?.as_u64()?;
    if let Some(deleted_at) = initial["deleted_at"].as_u64() {
        return Some(Record::Tombstone {
            version,
            deleted_at,
        });
    }
    let section = |name: &str| {
        let state: Object = initial[name].as_object().cloned().unwrap_or_default();
        let metadata = match &initial["metadata"][name] {
            Value::Null => metadata_at(&Value::Object(state.clone()), leaf_time),
            given => given.clone(),
        };
        let metadata = serde_json::from_value(metadata).expect("metadata");
        Arc::new(Section { state, metadata })
    };
    Some(Record::Live(Arc::new(Document {
        desired: section("desired"),
        reported: section("reported"),
        version,
    })))
}

fn metadata_at(value: &Value, at: u64) -> Value {
    match value {
        Value::Object(o) => o
            .iter()
            .map(|(k, v)| (k.clone(), metadata_at(v, at)))
            .collect::<Object>()
            .into(),
        Value::Array(a) => a.iter().map(|v| metadata_at(v, at)).collect(),
        _ => json!({ "timestamp": at }),
    }
}

pub(crate) fn check(vector: &Value, outcome: &Outcome, channel: Channel) {
    let (id, expect) = (&vector["id"], &vector["expect"]);
    let published_body = |suffix: &str| {
        let found = outcome.published.iter().find(|(s, _)| s == suffix);
        found.map(|(_, body)| body.clone())
    };
    match (
        expect["result"].as_str().expect("a result"),
        &outcome.answer,
    ) {
        ("accepted", Answer::Accepted(body)) => {
            if let Some(accepted) = expect.get("accepted") {
                assert_eq!(body, accepted, "{id}: accepted");
            }
        }
        ("rejected", Answer::Rejected(found, kind)) => {
            let wanted = &expect["rejected"];
            assert_eq!(found["code"], wanted["code"], "{id}: code");
            if wanted["message"] != "*" {
                assert_eq!(found["message"], wanted["message"], "{id}: message");
            }
            if channel != Channel::Rest && wanted["message"] != "*" {
                assert_eq!(found, wanted, "{id}: rejected");
            }
            if let Some(kind) = kind {
                assert_eq!(*kind, expect["rest_error"], "{id}: error type");
                assert_eq!(found["code"], expect["rest_status"], "{id}: status");
            }
            assert!(
                outcome.before == outcome.after,
                "{id}: a rejection changes nothing"
            );
        }
        (wanted, Answer::Accepted(body)) => panic!("{id}: expected {wanted}, found {body}"),
        (wanted, Answer::Rejected(body, _)) => panic!("{id}: expected {wanted}, found {body}"),
    }
    for (member, suffix) in [("delta", "update/delta"), ("documents", "update/documents")] {
        if let Some(wanted) = expect.get(member) {
            assert_eq!(
                published_body(suffix).unwrap_or(Value::Null),
                *wanted,
                "{id}: {member}"
            );
        }
    }
    if let Some(wanted) = expect["topics"].as_array() {
        // An answer to the requester alone is a message only over MQTT.
        let requester_only =
            |topic: &&str| topic.ends_with("rejected") || topic.starts_with("get/");
        let wanted = wanted.iter().filter_map(Value::as_str);
        let wanted: BTreeSet<&str> = wanted
            .filter(|t| channel == Channel::Mqtt || !requester_only(t))
            .collect();
        let found = outcome.published.iter().map(|(suffix, _)| suffix.as_str());
        let found: Vec<&str> = found.collect();
        assert_eq!(
            found.iter().copied().collect::<BTreeSet<_>>(),
            wanted,
            "{id}: topics"
        );
        let order = ["update/accepted", "update/delta", "update/documents"];
        let positions = found
            .iter()
            .filter_map(|topic| order.iter().position(|known| known == topic));
        assert!(
            positions.is_sorted(),
            "{id}: topics in the documented order: {found:?}"
        );
    }
    if let Some(stored) = expect.get("stored").filter(|s| !s.is_null()) {
        let after = outcome
            .after
            .as_ref()
            .expect("a stored shadow")
            .stored_body();
        let mut found = after["state"].clone();
        found["version"] = after["version"].clone();
        let without_metadata: Object = stored
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(k, _)| *k != "metadata")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert_eq!(found, Value::Object(without_metadata), "{id}: stored");
        if let Some(metadata) = stored.get("metadata") {
            assert_eq!(after["metadata"], *metadata, "{id}: stored metadata");
        }
    }
}

/// The same vector for another thing, so that vectors can share a service.
pub(crate) fn on_thing(vector: &Value, n: usize) -> Value {
    let text = vector
        .to_string()
        .replace("lock-1", &format!("lock-{n:04}"));
    serde_json::from_str(&text).expect("still a vector")
}
