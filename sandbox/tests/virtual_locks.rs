//! What virtual locks do with their shadows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keywright_sandbox::{Shadows, VirtualLocks, read_memory};
use keywright_shadow::{Limits, MessageKind, ServiceConfig, ShadowName, ShadowService};
use serde_json::{Value, json};
use tempfile::TempDir;

const NOW: u64 = 1_780_000_000;

struct World {
    folder: TempDir,
    service: ShadowService,
}

impl World {
    fn new() -> Self {
        let config = ServiceConfig {
            clock: Arc::new(|| NOW),
            limits: Limits::default(),
        };
        let service = ShadowService::in_memory(config);
        let folder = TempDir::new().expect("a folder");
        Self { folder, service }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("virtual-locks.sqlite")
    }

    fn shadows(&self) -> Shadows {
        Shadows::InProcess(self.service.clone(), keys())
    }

    fn start(&self, behaviour: &str) -> VirtualLocks {
        let clock = Arc::new(|| NOW);
        let locks = VirtualLocks::open(&self.file(), self.shadows(), clock, None);
        let mut locks = locks.expect("virtual locks");
        locks.add("door", behaviour.parse().expect("a behaviour"));
        locks
    }

    async fn update(&self, body: Value) {
        let body = body.to_string();
        let accepted = self.service.update("door", &keys(), body.as_bytes()).await;
        accepted.expect("accepted");
    }

    async fn write(&self, id: &str, key: &str, index: Option<u64>, seq: u64) {
        let mut entry = json!({ "keyUuid": key, "seq": seq, "expiresAt": NOW + 100 });
        if let Some(index) = index {
            entry["keyIndexNumber"] = json!(index);
        }
        self.update(json!({ "state": { "desired": { "writeKey": { id: entry } } } }))
            .await;
    }

    fn result(&self, id: &str) -> Option<Value> {
        let document = self.service.document("door", &keys())?;
        document
            .reported
            .state
            .get("writeKeyResult")?
            .get(id)
            .cloned()
    }

    fn entries(&self) -> usize {
        let document = self.service.document("door", &keys()).expect("a shadow");
        document
            .desired
            .state
            .get("writeKey")
            .map_or(0, |e| e.as_object().expect("entries").len())
    }

    async fn settled(&self, id: &str) -> Value {
        for _ in 0..1000 {
            if let Some(result) = self.result(id)
                && result["status"] != "IN_PROGRESS"
            {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the lock says nothing of {id}");
    }
}

fn keys() -> ShadowName {
    ShadowName::Named("keys".into())
}

fn succeeded(slot: u64) -> Value {
    json!({ "status": "SUCCEEDED", "keyIndexNumber": slot })
}

#[tokio::test]
async fn a_lock_does_what_its_shadow_asks_and_takes_the_entry_away() {
    let world = World::new();
    let locks = world.start("latency=1ms");
    world.write("w1", "k1", Some(2), 1).await;
    assert_eq!(world.settled("w1").await, succeeded(2));
    assert_eq!(world.entries(), 0);
    assert_eq!(
        locks.memory("door").keys.get(&2).map(String::as_str),
        Some("k1")
    );
    let on_disk = read_memory(&world.file(), "door").expect("read beside the lock");
    assert_eq!(on_disk, locks.memory("door"));
}

#[tokio::test]
async fn what_was_written_while_it_was_offline_is_done_in_order() {
    let world = World::new();
    let _locks = world.start("latency=1ms,offline=80ms");
    world.write("w2", "newer", Some(2), 2).await;
    world.write("w1", "older", Some(2), 1).await;
    assert_eq!(world.result("w1"), None);
    world.settled("w2").await;
    let memory = read_memory(&world.file(), "door").expect("read");
    assert_eq!(memory.keys.get(&2).map(String::as_str), Some("newer"));
}

#[tokio::test]
async fn a_write_that_was_taken_off_before_it_looked_is_never_done() {
    let world = World::new();
    let locks = world.start("latency=1ms,offline=80ms");
    world.write("w1", "superseded", Some(2), 1).await;
    world
        .update(json!({ "state": { "desired": { "writeKey": { "w1": null } } } }))
        .await;
    world.write("w2", "newer", Some(3), 2).await;
    world.settled("w2").await;
    assert_eq!(locks.memory("door").keys.get(&2), None);
    assert_eq!(world.result("w1"), None);
}

#[tokio::test]
async fn a_restarted_lock_remembers_and_answers_again() {
    let world = World::new();
    let locks = world.start("latency=1ms,silent");
    world.write("w1", "k1", None, 1).await;
    while locks.memory("door").keys.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.result("w1"), None, "it is silent");
    drop(locks);
    let locks = world.start("fail=ShouldNotBeAsked");
    assert_eq!(world.settled("w1").await, succeeded(0));
    assert_eq!(locks.memory("door").keys.len(), 1);
}

#[tokio::test]
async fn a_lock_that_needs_a_card_says_that_it_waits() {
    let world = World::new();
    let mut announcements = world.service.subscribe_all();
    let _locks = world.start("card=20ms");
    world.write("w1", "k1", None, 1).await;
    assert_eq!(world.settled("w1").await, succeeded(0));
    let mut said = Vec::new();
    while let Ok(told) = announcements.try_recv() {
        if let Some(accepted) = told.message(MessageKind::UpdateAccepted) {
            let body = accepted.body();
            let status = body.pointer("/state/reported/writeKeyResult/w1/status");
            said.extend(status.and_then(Value::as_str).map(str::to_owned));
        }
    }
    assert_eq!(said, ["IN_PROGRESS", "SUCCEEDED"]);
}

#[tokio::test]
async fn a_lock_that_reports_twice_does_so() {
    let world = World::new();
    let mut announcements = world.service.subscribe_all();
    let _locks = world.start("latency=1ms,twice");
    world.write("w1", "k1", None, 1).await;
    let mut reports = 0;
    while reports < 2 {
        let told = announcements.recv().await.expect("an announcement");
        let accepted = told.message(MessageKind::UpdateAccepted);
        let body = accepted.expect("an update").body();
        let reported = body.pointer("/state/reported/writeKeyResult/w1");
        reports += usize::from(reported.is_some());
    }
}

#[tokio::test]
async fn a_thing_without_a_lock_gets_one_if_that_is_wanted() {
    let world = World::new();
    let clock = Arc::new(|| NOW);
    let others = "latency=1ms".parse().ok();
    let locks = VirtualLocks::open(&world.file(), world.shadows(), clock, others);
    let locks = locks.expect("virtual locks");
    world.write("w1", "k1", Some(2), 1).await;
    assert_eq!(world.settled("w1").await, succeeded(2));
    world.write("w2", "k2", Some(3), 2).await;
    assert_eq!(world.settled("w2").await, succeeded(3));
    assert_eq!(locks.memory("door").keys.len(), 2);
}

#[tokio::test]
async fn a_lock_does_otherwise_for_a_while_from_the_first_write_on() {
    let world = World::new();
    let _locks = world.start("latency=0s,offline@0s-400ms,fail=NoSpace@400ms-2s");
    // As long as nothing is asked of it, no time passes for its script.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = tokio::time::Instant::now();
    world.write("w1", "k1", Some(2), 1).await;
    assert_eq!(
        world.settled("w1").await,
        json!({ "status": "FAILED", "reason": "NoSpace" })
    );
    assert!(start.elapsed() >= Duration::from_millis(400));
    tokio::time::sleep_until(start + Duration::from_millis(2600)).await;
    world.write("w2", "k1", Some(2), 2).await;
    assert_eq!(world.settled("w2").await, succeeded(2));
}
