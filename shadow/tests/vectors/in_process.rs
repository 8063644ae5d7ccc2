use std::path::Path;
use std::sync::Arc;

use keywright_shadow::{Accepted, ServiceConfig, ShadowService};
use serde_json::{Value, json};

use crate::vectors::{self, Answer, Channel, Outcome};

async fn run_group(confidence: &str, expected_count: usize) {
    let vectors = vectors::vectors(confidence, Channel::InProcess);
    assert_eq!(vectors.len(), expected_count, "the number of vectors");
    for vector in &vectors {
        run(vector).await;
        run(&vectors::varied(vector)).await;
    }
    println!(
        "{} vectors of {confidence} confidence, each twice: the second time with other names, keys, tokens and times",
        vectors.len()
    );
}

#[tokio::test]
async fn high_confidence() {
    run_group("high", 38 + 3).await;
}

#[tokio::test]
async fn medium_confidence() {
    run_group("medium", 21).await;
}

#[tokio::test]
async fn low_confidence() {
    run_group("low", 5).await;
}

async fn run(vector: &Value) {
    let now = vectors::now(vector);
    let config = ServiceConfig {
        clock: Arc::new(move || now),
        limits: vectors::limits(vector),
    };
    run_on(&ShadowService::in_memory(config.clone()), vector).await;
    // SQLite in memory; `durable.rs` tests files.
    let service = ShadowService::open(Path::new(":memory:"), config).await;
    run_on(&service.expect("a store"), vector).await;
}

async fn run_on(service: &ShadowService, vector: &Value) {
    let (thing, shadow) = (vectors::thing(vector), vectors::shadow_name(vector));
    if let Some(record) = vectors::initial_record(vector) {
        service
            .put_record(thing, &shadow, record)
            .await
            .expect("stored");
    }
    let before = service.document(thing, &shadow);
    let mut announcements = service.subscribe_all();
    let body = vectors::body(vector);
    let body_of = |accepted: Accepted| accepted.body();
    let answer = match vector["op"].as_str().expect("an operation") {
        "update" => service
            .update(thing, &shadow, body.as_bytes())
            .await
            .map(body_of),
        "get" => service
            .get(thing, &shadow, body.as_bytes())
            .await
            .map(body_of),
        "delete" => service
            .delete(thing, &shadow, body.as_bytes())
            .await
            .map(body_of),
        "list" => {
            let results = service.named_shadows(thing);
            Ok(json!({ "results": results, "timestamp": vectors::now(vector) }))
        }
        other => panic!("unknown operation {other}"),
    };
    let mut published = Vec::new();
    while let Ok(announcement) = announcements.try_recv() {
        let messages = announcement.messages();
        published.extend(messages.map(|m| (m.kind.topic_suffix().to_owned(), m.body())));
    }
    let answer = match answer {
        Ok(body) => Answer::Accepted(body),
        Err(rejected) => Answer::Rejected(rejected.body(), Some(rejected.rest_error_type().into())),
    };
    let outcome = Outcome {
        answer,
        published,
        before,
        after: service.document(thing, &shadow),
    };
    vectors::check(vector, &outcome, Channel::InProcess);
}
