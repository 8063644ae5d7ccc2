//! Every case of `shadow-vectors.jsonl`, the three confidence groups apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use keywright_shadow::engine::{Document, Object, Section};
use keywright_shadow::{
    Accepted, Limits, Record, Rejected, ServiceConfig, ShadowName, ShadowService,
};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("shadow-vectors.jsonl");

fn vectors(confidence: &str) -> Vec<Value> {
    let all = VECTORS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a vector"));
    all.filter(|v| v["confidence"] == confidence).collect()
}

async fn run_group(confidence: &str, expected_count: usize) {
    let vectors = vectors(confidence);
    assert_eq!(vectors.len(), expected_count, "every vector is run");
    for vector in &vectors {
        run(vector).await;
        run(&varied(vector)).await;
    }
    println!(
        "{} vectors of {confidence} confidence, each also with other names, keys, tokens and times",
        vectors.len()
    );
}

#[tokio::test]
async fn high_confidence() {
    run_group("high", 38).await;
}

#[tokio::test]
async fn medium_confidence() {
    run_group("medium", 21).await;
}

#[tokio::test]
async fn low_confidence() {
    run_group("low", 5).await;
}

/// The same case with another thing, another named shadow, other attribute keys, other times and another
/// token.
fn varied(vector: &Value) -> Value {
    let token = vector["payload"]["clientToken"]
        .as_str()
        .filter(|t| t.len() < 64);
    let mut text = vector
        .to_string()
        .replace("lock-1", "Door:7_b")
        .replace("\"shadow\":\"keys\"", "\"shadow\":\"k:2_\"")
        .replace("~keys", "~k:2_")
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

/// The words of the protocol and of the vectors themselves; every other key is somebody's attribute.
const WORDS: &[&str] = &[
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

/// Keys of the same length in bytes, so that documents are as large as before.
fn with_other_keys(value: &Value) -> Value {
    let other = |key: &String| match WORDS.contains(&key.as_str()) {
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

fn shadow_name(vector: &Value) -> ShadowName {
    vector["shadow"]
        .as_str()
        .map_or(ShadowName::Classic, |n| ShadowName::Named(n.into()))
}

async fn run(vector: &Value) {
    let now = vector["now"].as_u64().expect("a time");
    let mut limits = Limits::default();
    if let Some(levels) = vector["config"]["max_levels"].as_u64() {
        limits.max_levels = usize::try_from(levels).expect("a small number");
    }
    let config = ServiceConfig {
        clock: Arc::new(move || now),
        limits,
    };
    run_on(&ShadowService::in_memory(config.clone()), vector, now).await;
    #[cfg(feature = "durable")]
    {
        // SQLite without a file: what a disk keeps is tested in `durable.rs`.
        let service = ShadowService::open(std::path::Path::new(":memory:"), config).await;
        run_on(&service.expect("a store"), vector, now).await;
    }
}

async fn run_on(service: &ShadowService, vector: &Value, now: u64) {
    let (thing, shadow) = (
        vector["thing"].as_str().expect("a thing"),
        shadow_name(vector),
    );
    let leaf_time = vector["id"].as_str().map(|_| now - 100).expect("an id");
    if let Some(record) = initial(&vector["initial"], leaf_time) {
        service.put(thing, &shadow, record).await.expect("stored");
    }
    let before = service.document(thing, &shadow);
    let mut messages = service.subscribe_all();
    let body = match (&vector["payload_raw"], &vector["payload"]) {
        (Value::String(raw), _) | (_, Value::String(raw)) => raw.clone(),
        (_, Value::Null) => String::new(),
        (_, payload) => payload.to_string(),
    };
    let answer = match vector["op"].as_str().expect("an operation") {
        "update" => service.update(thing, &shadow, body.as_bytes()).await,
        "get" => service.get(thing, &shadow, body.as_bytes()).await,
        "delete" => service.delete(thing, &shadow, body.as_bytes()).await,
        "list" => {
            let results = service.named_shadows(thing);
            let body = json!({ "results": results, "timestamp": now });
            Ok(Accepted { body, version: 0 })
        }
        other => panic!("an operation that is not known: {other}"),
    };
    let mut published = Vec::new();
    while let Ok(message) = messages.try_recv() {
        published.push((message.kind.topic_suffix(), message.body.clone()));
    }
    let after = service.document(thing, &shadow);
    check(vector, answer, &published, before.as_ref(), after.as_ref());
}

fn initial(initial: &Value, leaf_time: u64) -> Option<Record> {
    let version = initial.get("version")?.as_u64()?;
    if let Some(deleted_at) = initial["deleted_at"].as_u64() {
        return Some(Record::Tombstone {
            version,
            deleted_at,
        });
    }
    let section = |name: &str| {
        let state: Object = initial[name].as_object().cloned().unwrap_or_default();
        let metadata = match initial["metadata"][name].as_object() {
            Some(given) => given.clone(),
            None => times(&Value::Object(state.clone()), leaf_time)
                .as_object()
                .cloned()
                .expect("an object"),
        };
        Section { state, metadata }
    };
    Some(Record::Live(Document {
        desired: section("desired"),
        reported: section("reported"),
        version,
    }))
}

fn times(value: &Value, at: u64) -> Value {
    match value {
        Value::Object(o) => o
            .iter()
            .map(|(k, v)| (k.clone(), times(v, at)))
            .collect::<Object>()
            .into(),
        Value::Array(a) => a.iter().map(|v| times(v, at)).collect(),
        _ => json!({ "timestamp": at }),
    }
}

fn check(
    vector: &Value,
    answer: Result<Accepted, Rejected>,
    published: &[(&str, Value)],
    before: Option<&Document>,
    after: Option<&Document>,
) {
    let (id, expect) = (&vector["id"], &vector["expect"]);
    let of = |suffix: &str| {
        published
            .iter()
            .find(|(s, _)| *s == suffix)
            .map(|(_, body)| body.clone())
    };
    match (expect["result"].as_str().expect("a result"), answer) {
        ("accepted", Ok(answer)) => {
            if let Some(accepted) = expect.get("accepted") {
                assert_eq!(answer.body, *accepted, "{id}: accepted");
            }
        }
        ("rejected", Err(rejected)) => {
            let wanted = &expect["rejected"];
            assert_eq!(json!(rejected.code), wanted["code"], "{id}: code");
            if wanted["message"] != "*" {
                assert_eq!(rejected.body(), *wanted, "{id}: rejected");
            }
            assert_eq!(
                json!(rejected.rest_error()),
                expect["rest_error"],
                "{id}: error type"
            );
            assert!(
                published.is_empty() && before == after,
                "{id}: a rejection changes nothing"
            );
        }
        (wanted, found) => panic!("{id}: expected {wanted}, found {found:?}"),
    }
    for (member, suffix) in [("delta", "update/delta"), ("documents", "update/documents")] {
        if let Some(wanted) = expect.get(member) {
            assert_eq!(of(suffix).unwrap_or(Value::Null), *wanted, "{id}: {member}");
        }
    }
    if let Some(wanted) = expect["topics"].as_array() {
        // Answers that only the caller gets are not messages of the service: its fronts send them.
        let own = |topic: &&str| topic.ends_with("rejected") || topic.starts_with("get/");
        let wanted = wanted.iter().filter_map(Value::as_str);
        let wanted: BTreeSet<&str> = wanted.filter(|topic| !own(topic)).collect();
        assert_eq!(
            published.iter().map(|(s, _)| *s).collect::<BTreeSet<_>>(),
            wanted,
            "{id}: topics"
        );
    }
    if let Some(stored) = expect.get("stored").filter(|s| !s.is_null()) {
        let after = after.expect("a stored shadow").stored_body();
        let mut found = after["state"].clone();
        found["version"] = after["version"].clone();
        let without_times: Object = stored
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(k, _)| *k != "metadata")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert_eq!(found, Value::Object(without_times), "{id}: stored");
        if let Some(metadata) = stored.get("metadata") {
            assert_eq!(after["metadata"], *metadata, "{id}: stored metadata");
        }
    }
}
