//! One lock with its store, its shadow, and a process with the use cases.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::{
    Fault, FaultInjector, FaultPlan, FaultyLockRepo, FaultyShadow, Operation,
};
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::{InMemoryShadow, document_json};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{LockSnapshot, RecordedEvent, Write, *};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::*;
use keywright_domain::{
    KeyWrites, MaintenanceOutcome, Ports, RequestOptions, Settings, Settlement, WithdrawError,
    WriteError, WriteReceipt, invariants,
};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::samples::{NOW, created, lock_id, principal, slot, thing};
use keywright_testkit::{ManualClock, SequentialIds};
use serde_json::{Value, json};

pub(crate) const LOCK: u64 = 123;

/// Faults of the next calls of each operation, in order. Further calls have none.
#[derive(Default)]
pub(crate) struct Faults<'a> {
    /// Of updates of the shadow.
    pub(crate) update: &'a [Fault],
    /// Of reads of the shadow.
    pub(crate) read: &'a [Fault],
    /// Of saves.
    pub(crate) save: &'a [Fault],
    /// Of loads.
    pub(crate) load: &'a [Fault],
}

#[derive(Clone)]
pub(crate) struct Harness {
    pub(crate) store: Arc<InMemoryLockRepo>,
    pub(crate) service: ShadowService,
    pub(crate) faults: FaultyShadow,
    /// Faults between the use cases and the store.
    pub(crate) store_faults: FaultInjector,
    pub(crate) clock: ManualClock,
    pub(crate) ports: Ports,
    pub(crate) writes: Arc<KeyWrites>,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::at(NOW);
        let seconds = clock.clone();
        let config = ServiceConfig {
            clock: Arc::new(move || seconds.now().as_secs()),
            limits: Limits::default(),
        };
        let service = ShadowService::in_memory(config);
        let shadow = InMemoryShadow::new(service.clone(), name());
        let faults = FaultyShadow::new(Arc::new(shadow));
        let timer = Arc::new(TokioTimer::default());
        let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
        let store_faults = FaultInjector::default();
        let ports = Ports {
            locks: Arc::new(FaultyLockRepo::new(store.clone(), store_faults.clone())),
            history: store.clone(),
            shadow: Arc::new(faults.clone()),
            clock: Arc::new(clock.clone()),
            timer,
            ids: Arc::new(SequentialIds::default()),
        };
        store
            .import(vec![created(lock_id(LOCK))])
            .await
            .expect("the lock is imported");
        let writes = Arc::new(start(&ports));
        Self {
            store,
            service,
            faults,
            store_faults,
            clock,
            ports,
            writes,
        }
    }

    /// Injects these faults from now on, and no others.
    pub(crate) fn inject(&self, faults: Faults<'_>) {
        let shadow = FaultPlan::default()
            .then(Operation::Update, faults.update.iter().copied())
            .then(Operation::Read, faults.read.iter().copied());
        let store = FaultPlan::default()
            .then(Operation::Save, faults.save.iter().copied())
            .then(Operation::Load, faults.load.iter().copied());
        self.faults.set(shadow);
        self.store_faults.set(store);
    }

    /// Ends all faults.
    pub(crate) fn end_faults(&self) {
        self.inject(Faults::default());
    }

    pub(crate) async fn delete_shadow(&self) {
        let thing = thing(lock_id(LOCK));
        // The shadow may not exist.
        let _ = self.service.delete(thing.as_str(), &name(), b"").await;
    }

    /// Creates the shadow if it does not exist, as a lock's first report does.
    pub(crate) async fn create_shadow(&self) {
        if self.shadow().is_none() {
            let body = json!({ "state": { "reported": { "writeKey": {} } } }).to_string();
            let thing = thing(lock_id(LOCK));
            let (name, body) = (name(), body.as_bytes());
            let created = self.service.update(thing.as_str(), &name, body).await;
            created.expect("accepted");
        }
    }

    /// Replaces the process by another one on the same store and shadow.
    pub(crate) fn restart(&mut self) {
        self.writes = Arc::new(start(&self.ports));
    }

    pub(crate) async fn write(
        &self,
        key: &str,
        index: Option<u64>,
    ) -> Result<WriteReceipt, WriteError> {
        let command = WriteKey {
            lock: lock_id(LOCK),
            slot: slot(key, index),
        };
        self.writes
            .write_key(&command, &principal(), RequestOptions::default())
            .await
    }

    pub(crate) async fn withdraw(&self, id: WriteId) -> Result<Write, WithdrawError> {
        self.writes
            .withdraw(lock_id(LOCK), id, &principal(), RequestOptions::default())
            .await
    }

    /// Reports a result as the lock does: one update of the shadow, which also removes the entry if the result is final.
    pub(crate) async fn report(&self, id: WriteId, result: Value) -> DeviceReport {
        let mut state = json!({ "reported": { "writeKeyResult": { id.to_string(): result } } });
        if result_is_final(&state, id) {
            state["desired"] = json!({ "writeKey": { id.to_string(): null } });
        }
        let body = json!({ "state": state }).to_string();
        let thing = thing(lock_id(LOCK));
        let answer = self
            .service
            .update(thing.as_str(), &name(), body.as_bytes())
            .await;
        let answer = answer.expect("a lock's report is accepted");
        let shadow_version = Some(ShadowVersion(answer.version));
        DeviceReport {
            thing,
            shadow_version,
            results: document_json::results(&answer.body()),
            entries: document_json::entries(&answer.body()),
        }
    }

    /// Settles a report.
    pub(crate) async fn settle(&self, report: &DeviceReport) -> Vec<Settlement> {
        let settled = self.writes.settle(report).await;
        settled.expect("the store answers")
    }

    /// Updates the shadow as another client.
    pub(crate) async fn foreign_update(&self, state: Value) {
        let body = json!({ "state": state }).to_string();
        let thing = thing(lock_id(LOCK));
        let updated = self
            .service
            .update(thing.as_str(), &name(), body.as_bytes())
            .await;
        updated.expect("accepted");
    }

    pub(crate) async fn lock(&self) -> LockSnapshot {
        let known = self
            .store
            .load(lock_id(LOCK))
            .await
            .expect("the store answers");
        known.expect("the lock exists")
    }

    pub(crate) async fn stream(&self) -> Vec<RecordedEvent> {
        let all = self
            .store
            .events(lock_id(LOCK), LockVersion(1), usize::MAX)
            .await;
        all.expect("the store answers")
    }

    /// The names of the lock's events.
    pub(crate) async fn event_names(&self) -> Vec<&'static str> {
        self.stream().await.iter().map(|e| e.event.name()).collect()
    }

    pub(crate) async fn stored(&self, id: WriteId) -> Option<Write> {
        self.store.write(id).await.expect("the store answers")
    }

    pub(crate) async fn state(&self, id: WriteId) -> &'static str {
        self.stored(id)
            .await
            .expect("the write exists")
            .state
            .name()
    }

    /// The contents of the shadow, read without faults.
    pub(crate) fn shadow(&self) -> Option<ShadowSnapshot> {
        let document = self
            .service
            .document(thing(lock_id(LOCK)).as_str(), &name())?;
        document_json::snapshot(&document.stored_body())
    }

    /// The delta of the shadow: what the lock would receive.
    pub(crate) fn delta(&self) -> Value {
        let document = self
            .service
            .document(thing(lock_id(LOCK)).as_str(), &name());
        document.map_or(Value::Null, |d| d.delta().into())
    }

    /// Lets leases end and recovers until no intent is left.
    pub(crate) async fn recover(&self) {
        for _ in 0..8 {
            tokio::time::sleep(self.writes.settings().lease + Duration::from_millis(1)).await;
            while self
                .writes
                .recover_next()
                .await
                .expect("the store answers")
                .is_some()
            {}
            if self.lock().await.prepared().is_none() {
                return;
            }
        }
    }

    /// Maintains the writes that are due, in pages of four.
    pub(crate) async fn maintain(&self) {
        let mut after = None;
        loop {
            let page = self.writes.due_writes(after, 4).await;
            let page = page.expect("the store answers");
            for write in &page {
                self.writes.maintain_write(write).await;
            }
            after = page.last().and_then(DueCursor::of);
            if page.len() < 4 || after.is_none() {
                return;
            }
        }
    }

    /// Checks the invariants that hold at any time, with the answers that clients got.
    pub(crate) async fn check(&self, answers: &[(WriteId, Result<WriteReceipt, WriteError>)]) {
        let stream = self.stream().await;
        let held = |result: Result<(), invariants::Violation>| assert_eq!(result, Ok(()));
        held(invariants::i1_stream(&stream));
        held(invariants::i6_settled_once(&stream));
        for (id, answer) in answers {
            if let Ok(written) = answer {
                held(invariants::i1_answered(written, &stream));
            }
            let stored = self.stored(*id).await;
            held(invariants::i2_answer(answer, stored.as_ref()));
            if let Some(stored) = stored {
                held(invariants::i2_aborted(
                    &stored,
                    &stream,
                    self.shadow().as_ref(),
                ));
            }
        }
    }

    /// Checks the invariants that hold at rest.
    pub(crate) async fn check_at_rest(&self) {
        let (shadow, lock) = (self.shadow(), self.lock().await);
        assert_eq!(invariants::i4_all_end(&lock, self.clock.now()), Ok(()));
        assert_eq!(invariants::i5_shadow(shadow.as_ref(), &lock), Ok(()));
    }
}

fn start(ports: &Ports) -> KeyWrites {
    KeyWrites::new(ports.clone(), Settings::default()).expect("the defaults are valid")
}

fn name() -> ShadowName {
    ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into())
}

fn result_is_final(state: &Value, id: WriteId) -> bool {
    state["reported"]["writeKeyResult"][id.to_string()]["status"] != "IN_PROGRESS"
}

pub(crate) fn succeeded() -> Value {
    json!({ "status": "SUCCEEDED" })
}

/// Maintains all writes with a next check. Returns how many failed.
pub(crate) async fn reconcile_all(writes: &KeyWrites) -> Result<usize, RepoError> {
    let mut failed = 0;
    for write in writes.scheduled_writes(None, 1000).await? {
        let outcome = writes.maintain_write(&write).await;
        failed += usize::from(outcome == MaintenanceOutcome::Failed);
    }
    Ok(failed)
}
