//! What a file of shadows keeps, and in which order concurrent updates are applied and announced.
#![cfg(feature = "durable")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keywright_shadow::{Limits, MessageKind, ServiceConfig, ShadowName, ShadowService};
use serde_json::json;
use tempfile::TempDir;

fn config() -> ServiceConfig {
    ServiceConfig {
        clock: Arc::new(|| 1_700_000_000),
        limits: Limits::default(),
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shadows.db");
    (folder, file)
}

async fn open(file: &Path) -> ShadowService {
    let opened = ShadowService::open(file, config()).await;
    opened.expect("a store")
}

fn keys() -> ShadowName {
    ShadowName::named("keys").expect("a name")
}

#[tokio::test]
async fn a_file_opened_again_holds_the_same_shadows() {
    let (_folder, file) = folder();
    let service = open(&file).await;
    for body in [
        json!({ "state": { "desired": { "a": [1, 0.1], "b": {} } } }),
        json!({ "state": { "reported": { "x": "ü", "n": 1e-7, "big": u64::MAX } } }),
    ] {
        let body = body.to_string();
        for shadow in [keys(), ShadowName::Classic] {
            let answer = service.update("lock", &shadow, body.as_bytes()).await;
            answer.expect("accepted");
        }
    }
    let deleted = service.delete("lock", &ShadowName::Classic, b"").await;
    deleted.expect("deleted");
    let before = service.records();
    drop(service);
    let service = open(&file).await;
    assert_eq!(service.records(), before);
    for (shadow, version) in [(keys(), 3), (ShadowName::Classic, 4)] {
        let next = service.update("lock", &shadow, br#"{"state":{}}"#).await;
        assert_eq!(next.expect("accepted").version, version);
    }
}

#[tokio::test]
async fn concurrent_updates_get_consecutive_versions() {
    let (_folder, file) = folder();
    let service = open(&file).await;
    let mut announcements = service.subscribe_all();
    let mut tasks = Vec::new();
    for n in 0..64 {
        let service = service.clone();
        tasks.push(tokio::spawn(async move {
            let body = json!({ "state": { "desired": { "n": n } } }).to_string();
            let answer = service.update("lock", &keys(), body.as_bytes()).await;
            answer.expect("accepted").version
        }));
    }
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.expect("no panic"));
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=64).collect::<Vec<u64>>());
    let mut published = Vec::new();
    while let Ok(announcement) = announcements.try_recv() {
        let accepted = announcement.message(MessageKind::UpdateAccepted);
        published.extend(accepted.map(|message| message.announcement.version));
    }
    assert_eq!(published, versions, "in the order of versions");
}

#[tokio::test]
async fn one_of_several_concurrent_conditional_updates_is_accepted() {
    let (_folder, file) = folder();
    let service = open(&file).await;
    let body = br#"{"state":{"desired":{"n":1}},"version":0}"#;
    let (name, mut tasks) = (keys(), Vec::new());
    for _ in 0..16 {
        let (service, name) = (service.clone(), name.clone());
        tasks.push(tokio::spawn(async move {
            let answer = service.update("lock", &name, body).await;
            answer.map_err(|e| e.code)
        }));
    }
    let mut accepted = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(_) => accepted += 1,
            Err(code) => assert_eq!(code, 409),
        }
    }
    assert_eq!(accepted, 1);
}

#[tokio::test]
async fn rejects_a_file_in_use_until_its_service_is_dropped() {
    let (_folder, file) = folder();
    let service = open(&file).await;
    let error = ShadowService::open(&file, config()).await.err();
    let text = error.expect("rejected").to_string();
    assert!(text.contains("another process"), "{text}");
    assert!(text.contains(&file.display().to_string()), "{text}");
    drop(service);
    open(&file).await;
}
