//! One lock, a store, a shadow, and a lock's side to report from.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::{
    Fault, FaultPlan, Faults, FaultyLockRepo, FaultyShadow, Operation,
};
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::{InMemoryShadow, document};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{LockSnapshot, RecordedEvent, Write, *};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::*;
use keywright_domain::{
    KeyWrites, Ports, RequestOptions, Settings, WithdrawError, WriteError, WriteReceipt,
    invariants as holds,
};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::samples::{NOW, created, lock_id, principal, slot, thing};
use keywright_testkit::{ManualClock, SequentialIds};
use serde_json::{Value, json};

pub(crate) const LOCK: u64 = 123;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: Arc<InMemoryLockRepo>,
    pub(crate) service: ShadowService,
    pub(crate) faults: FaultyShadow,
    /// What goes wrong between the use cases and the store.
    pub(crate) store_faults: Faults,
    pub(crate) clock: ManualClock,
    pub(crate) ports: Ports,
    pub(crate) writes: Arc<KeyWrites>,
}

impl World {
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
        let store_faults = Faults::default();
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

    /// From now on these calls go wrong, each list from its start.
    pub(crate) fn trouble_at(&self, shadow: [&[Fault]; 2], store: [&[Fault]; 2]) {
        let plan = |operations: [Operation; 2], faults: [&[Fault]; 2]| {
            let plan = FaultPlan::default().then(operations[0], faults[0].iter().copied());
            plan.then(operations[1], faults[1].iter().copied())
        };
        self.faults
            .set(plan([Operation::Update, Operation::Read], shadow));
        self.store_faults
            .set(plan([Operation::Save, Operation::Load], store));
    }

    /// From now on everything works.
    pub(crate) fn no_trouble(&self) {
        self.trouble_at([&[], &[]], [&[], &[]]);
    }

    pub(crate) async fn delete_shadow(&self) {
        let thing = thing(lock_id(LOCK));
        // There may be none.
        let _ = self.service.delete(thing.as_str(), &name(), b"").await;
    }

    /// Makes the shadow where there is none, as a lock's first report would.
    pub(crate) async fn create_shadow(&self) {
        if self.shadow().is_none() {
            let body = json!({ "state": { "reported": { "writeKey": {} } } }).to_string();
            let thing = thing(lock_id(LOCK));
            let (name, body) = (name(), body.as_bytes());
            let made = self.service.update(thing.as_str(), &name, body).await;
            made.expect("accepted");
        }
    }

    /// Another process on the same store and shadow; the earlier one is gone.
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
            .withdraw(lock_id(LOCK), id, &principal(), None)
            .await
    }

    /// What the lock reports in one update, and takes off its list where it is done.
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
            results: document::results(&answer.body()),
            entries: document::entries(&answer.body()),
        }
    }

    /// What somebody else does to the shadow.
    pub(crate) async fn tamper(&self, state: Value) {
        let body = json!({ "state": state }).to_string();
        let thing = thing(lock_id(LOCK));
        let done = self
            .service
            .update(thing.as_str(), &name(), body.as_bytes())
            .await;
        done.expect("accepted");
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

    pub(crate) async fn names(&self) -> Vec<&'static str> {
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

    /// What stands on the shadow, read past all faults.
    pub(crate) fn shadow(&self) -> Option<ShadowSnapshot> {
        let document = self
            .service
            .document(thing(lock_id(LOCK)).as_str(), &name())?;
        document::snapshot(&document.stored_body())
    }

    /// Whether the lock would find something to do.
    pub(crate) fn delta(&self) -> Value {
        let document = self
            .service
            .document(thing(lock_id(LOCK)).as_str(), &name());
        document.map_or(Value::Null, |d| d.delta().into())
    }

    /// Lets leases end and recovers until nothing is left.
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

    pub(crate) async fn maintain(&self) {
        let mut after = None;
        loop {
            let done = self
                .writes
                .maintain(after, 4)
                .await
                .expect("the store answers");
            after = done.next;
            if after.is_none() {
                return;
            }
        }
    }

    /// The invariants that hold at any moment, over every write that was answered.
    pub(crate) async fn check(&self, answers: &[(WriteId, Result<WriteReceipt, WriteError>)]) {
        let stream = self.stream().await;
        let held = |result: Result<(), holds::Violation>| assert_eq!(result, Ok(()));
        held(holds::i1_stream(&stream));
        held(holds::i6_settled_once(&stream));
        for (id, answer) in answers {
            if let Ok(written) = answer {
                held(holds::i1_answered(written, &stream));
            }
            let stored = self.stored(*id).await;
            held(holds::i2_answer(answer, stored.as_ref()));
            if let Some(stored) = stored {
                held(holds::i2_aborted(&stored, &stream, self.shadow().as_ref()));
            }
        }
    }

    /// Those that hold once everything has come to rest.
    pub(crate) async fn check_at_rest(&self) {
        let (shadow, lock) = (self.shadow(), self.lock().await);
        assert_eq!(holds::i4_all_end(&lock, self.clock.now()), Ok(()));
        assert_eq!(holds::i5_shadow(shadow.as_ref(), &lock), Ok(()));
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
