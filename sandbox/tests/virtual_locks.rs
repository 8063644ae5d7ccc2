//! Virtual locks on shadows in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keywright_sandbox::{Shadows, VirtualLocks, read_memory};
use keywright_shadow::{Limits, MessageKind, ServiceConfig, ShadowName, ShadowService};
use serde_json::{Value, json};
use tempfile::TempDir;

const NOW: u64 = 1_780_000_000;

struct Harness {
    folder: TempDir,
    service: ShadowService,
}

impl Harness {
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
        panic!("the lock does not report {id}");
    }
}

fn keys() -> ShadowName {
    ShadowName::Named("keys".into())
}

fn succeeded(slot: u64) -> Value {
    json!({ "status": "SUCCEEDED", "keyIndexNumber": slot })
}

#[tokio::test]
async fn executes_a_write_and_removes_its_entry() {
    let harness = Harness::new();
    let locks = harness.start("latency=1ms");
    harness.write("w1", "k1", Some(2), 1).await;
    assert_eq!(harness.settled("w1").await, succeeded(2));
    assert_eq!(harness.entries(), 0);
    assert_eq!(
        locks.memory("door").keys.get(&2).map(String::as_str),
        Some("k1")
    );
    let on_disk = read_memory(&harness.file(), "door").expect("read while the lock runs");
    assert_eq!(on_disk, locks.memory("door"));
}

#[tokio::test]
async fn executes_writes_in_order_after_being_offline() {
    let harness = Harness::new();
    let _locks = harness.start("latency=1ms,offline=80ms");
    harness.write("w2", "newer", Some(2), 2).await;
    harness.write("w1", "older", Some(2), 1).await;
    assert_eq!(harness.result("w1"), None);
    harness.settled("w2").await;
    let memory = read_memory(&harness.file(), "door").expect("read");
    assert_eq!(memory.keys.get(&2).map(String::as_str), Some("newer"));
}

#[tokio::test]
async fn does_not_execute_an_entry_that_was_removed_in_time() {
    let harness = Harness::new();
    let locks = harness.start("latency=1ms,offline=80ms");
    harness.write("w1", "superseded", Some(2), 1).await;
    harness
        .update(json!({ "state": { "desired": { "writeKey": { "w1": null } } } }))
        .await;
    harness.write("w2", "newer", Some(3), 2).await;
    harness.settled("w2").await;
    assert_eq!(locks.memory("door").keys.get(&2), None);
    assert_eq!(harness.result("w1"), None);
}

#[tokio::test]
async fn reports_a_settled_write_after_a_restart() {
    let harness = Harness::new();
    let locks = harness.start("latency=1ms,silent");
    harness.write("w1", "k1", None, 1).await;
    while locks.memory("door").keys.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(harness.result("w1"), None, "the lock is silent");
    drop(locks);
    let locks = harness.start("fail=ShouldNotBeAsked");
    assert_eq!(harness.settled("w1").await, succeeded(0));
    assert_eq!(locks.memory("door").keys.len(), 1);
}

#[tokio::test]
async fn reports_in_progress_while_waiting_for_a_card() {
    let harness = Harness::new();
    let mut announcements = harness.service.subscribe_all();
    let _locks = harness.start("card=20ms");
    harness.write("w1", "k1", None, 1).await;
    assert_eq!(harness.settled("w1").await, succeeded(0));
    let mut statuses = Vec::new();
    while let Ok(announcement) = announcements.try_recv() {
        if let Some(accepted) = announcement.message(MessageKind::UpdateAccepted) {
            let body = accepted.body();
            let status = body.pointer("/state/reported/writeKeyResult/w1/status");
            statuses.extend(status.and_then(Value::as_str).map(str::to_owned));
        }
    }
    assert_eq!(statuses, ["IN_PROGRESS", "SUCCEEDED"]);
}

#[tokio::test]
async fn sends_reports_twice() {
    let harness = Harness::new();
    let mut announcements = harness.service.subscribe_all();
    let _locks = harness.start("latency=1ms,twice");
    harness.write("w1", "k1", None, 1).await;
    let mut reports = 0;
    while reports < 2 {
        let announcement = announcements.recv().await.expect("an announcement");
        let accepted = announcement.message(MessageKind::UpdateAccepted);
        let body = accepted.expect("an update").body();
        let reported = body.pointer("/state/reported/writeKeyResult/w1");
        reports += usize::from(reported.is_some());
    }
}

#[tokio::test]
async fn starts_a_lock_for_a_thing_without_one() {
    let harness = Harness::new();
    let clock = Arc::new(|| NOW);
    let others = "latency=1ms".parse().ok();
    let locks = VirtualLocks::open(&harness.file(), harness.shadows(), clock, others);
    let locks = locks.expect("virtual locks");
    harness.write("w1", "k1", Some(2), 1).await;
    assert_eq!(harness.settled("w1").await, succeeded(2));
    harness.write("w2", "k2", Some(3), 2).await;
    assert_eq!(harness.settled("w2").await, succeeded(3));
    assert_eq!(locks.memory("door").keys.len(), 2);
}

#[tokio::test]
async fn scripts_start_with_the_first_write() {
    let harness = Harness::new();
    let _locks = harness.start("latency=0s,offline@0s-400ms,fail=NoSpace@400ms-2s");
    // The script does not start before the first write.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = tokio::time::Instant::now();
    harness.write("w1", "k1", Some(2), 1).await;
    assert_eq!(
        harness.settled("w1").await,
        json!({ "status": "FAILED", "reason": "NoSpace" })
    );
    assert!(start.elapsed() >= Duration::from_millis(400));
    tokio::time::sleep_until(start + Duration::from_millis(2600)).await;
    harness.write("w2", "k1", Some(2), 2).await;
    assert_eq!(harness.settled("w2").await, succeeded(2));
}
