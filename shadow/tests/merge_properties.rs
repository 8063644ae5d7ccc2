//! Properties of merges, deltas and versions that hold for any documents.

use std::sync::Arc;

use keywright_shadow::engine::{Document, Limits, Object, Request, delta};
use keywright_shadow::{ServiceConfig, ShadowName, ShadowService};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Small trees with few different keys, so that documents overlap.
fn value(with_null: bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => if with_null { Just(Value::Null) } else { Just(json!(true)) },
        2 => (0..3_i32).prop_map(|n| json!(n)),
        1 => "[xy]".prop_map(Value::String),
        1 => prop::collection::vec(0..2_i32, 0..3).prop_map(|a| json!(a)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map("[abc]", inner, 0..3)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
    })
}

fn object(with_null: bool) -> impl Strategy<Value = Object> {
    prop::collection::btree_map("[abc]", value(with_null), 0..4)
        .prop_map(|m| m.into_iter().collect())
}

fn request(desired: &Object, reported: &Object) -> Request {
    let body = json!({ "state": { "desired": desired, "reported": reported } }).to_string();
    Request::parse(body.as_bytes(), &Limits::default()).expect("a valid request")
}

fn update(document: &Document, desired: &Object, reported: &Object, now: u64) -> Document {
    document
        .update(&request(desired, reported), &Limits::default(), now)
        .expect("an accepted update")
}

/// Whether metadata has a timestamp for each leaf of the state and nothing else.
fn has_same_shape(state: &Value, metadata: &Value) -> bool {
    match (state, metadata) {
        (Value::Object(s), Value::Object(m)) => {
            s.len() == m.len()
                && s.iter()
                    .all(|(k, s)| m.get(k).is_some_and(|m| has_same_shape(s, m)))
        }
        (Value::Array(s), Value::Array(m)) => {
            s.len() == m.len() && s.iter().zip(m).all(|(s, m)| has_same_shape(s, m))
        }
        (leaf, time) => !leaf.is_object() && !leaf.is_array() && time["timestamp"].is_u64(),
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

fn service() -> ShadowService {
    ShadowService::in_memory(ServiceConfig {
        clock: Arc::new(|| 1),
        limits: Limits::default(),
    })
}

proptest! {
    #[test]
    fn metadata_has_the_shape_of_the_state(patches in prop::collection::vec((object(true), object(true)), 1..6)) {
        let mut document = Document::default();
        for (n, (desired, reported)) in patches.iter().enumerate() {
            let next = update(&document, desired, reported, n as u64);
            prop_assert_eq!(next.version, document.version + 1);
            for section in [&next.desired, &next.reported] {
                let (state, metadata) = (section.state.clone().into(), json!(section.metadata));
                prop_assert!(has_same_shape(&state, &metadata), "{} / {}", state, metadata);
                prop_assert!(!has_null(&state));
            }
            document = next;
        }
    }

    #[test]
    fn merging_is_idempotent(start in object(false), patch in object(true)) {
        let document = update(&Document::default(), &start, &Object::new(), 1);
        let once = update(&document, &patch, &Object::new(), 2);
        let twice = update(&once, &patch, &Object::new(), 2);
        prop_assert_eq!(once.desired, twice.desired);
    }

    #[test]
    fn an_empty_patch_changes_only_the_version(start in object(false)) {
        let document = update(&Document::default(), &start, &start, 1);
        let next = update(&document, &Object::new(), &Object::new(), 2);
        prop_assert_eq!((&next.desired, &next.reported), (&document.desired, &document.reported));
    }

    #[test]
    fn the_delta_of_equal_objects_is_empty(a in object(false)) {
        prop_assert!(delta(&a, &a).is_empty());
    }

    #[test]
    fn a_delta_has_only_members_of_desired(a in object(false), b in object(false)) {
        prop_assert!(delta(&a, &b).keys().all(|k| a.contains_key(k)));
    }

    #[test]
    fn reporting_the_delta_empties_it(a in object(false), b in object(false)) {
        let document = update(&Document::default(), &a, &b, 1);
        let caught_up = update(&document, &Object::new(), &document.delta(), 2);
        prop_assert!(caught_up.delta().is_empty(), "{:?}", caught_up.delta());
    }

    #[test]
    fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..64), text in "[{}\\[\\]:,\"a-z0-9 ]{0,40}") {
        for body in [&body[..], text.as_bytes()] {
            if let Ok(request) = Request::parse(body, &Limits::default()) {
                let document = Document::default().update(&request, &Limits::default(), 1);
                prop_assert!(document.is_ok() || request.version.is_some_and(|v| v != 0));
            }
        }
    }
}

#[tokio::test]
async fn one_of_several_concurrent_conditional_updates_is_accepted() {
    let service = service();
    let shadow = ShadowName::named("keys").expect("a name");
    service
        .update("lock", &shadow, br#"{"state":{}}"#)
        .await
        .expect("created");
    let mut tasks = Vec::new();
    for n in 0..32 {
        let (service, shadow) = (service.clone(), shadow.clone());
        tasks.push(tokio::spawn(async move {
            let body = json!({ "state": { "desired": { "n": n } }, "version": 1 }).to_string();
            service
                .update("lock", &shadow, body.as_bytes())
                .await
                .is_ok()
        }));
    }
    let mut accepted = 0;
    for task in tasks {
        accepted += u32::from(task.await.expect("no panic"));
    }
    assert_eq!(accepted, 1);
}

#[tokio::test]
async fn a_deleted_shadow_keeps_its_version() {
    let service = service();
    let classic = ShadowName::Classic;
    for _ in 0..3 {
        service
            .update("lock", &classic, br#"{"state":{"desired":{"a":1}}}"#)
            .await
            .expect("updated");
    }
    let deleted = service.delete("lock", &classic, b"").await;
    assert_eq!(deleted.expect("deleted").version, 3);
    let again = service
        .update("lock", &classic, br#"{"state":{}}"#)
        .await
        .expect("created again");
    assert_eq!(again.version, 5);
}
