//! The simulated world: a store, shadows, locks, replicas, and their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_adapters::decorator::{FaultInjector, FaultPlan, FaultyLockRepo, FaultyShadow};
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::{InMemoryShadow, document_json};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{LockEvent, LockSnapshot, RecordedEvent, Write, WriteState, *};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::*;
use keywright_domain::{Ports, RequestOptions, WriteError, WriteReceipt, invariants};
use keywright_shadow::{Limits as ShadowLimits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::SequentialIds;
use keywright_testkit::samples::{NOW, created, lock_id, principal, slot, thing};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::broken_ports::{Broken, BrokenShadow, BrokenStore};
use crate::replica::Replica;

const REPLICAS: usize = 3;
const LOCKS: [u64; 2] = [1, 2];

/// The number of random acts before all faults end.
const ACTS: u32 = 60;

/// How long it may take to come to rest: leases, the time to live, and final checks.
const REST: Duration = Duration::from_secs(200);

/// The wall clock of the simulated time.
struct SimulatedClock(Instant);

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        NOW.after(self.0.elapsed())
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
struct Answered {
    lock: u64,
    key: String,
    idempotency_key: Option<String>,
    /// Whether no other request writes this key.
    is_unique: bool,
    answer: Result<WriteReceipt, WriteError>,
}

pub(crate) struct World {
    seed: u64,
    random: fastrand::Rng,
    store: Arc<InMemoryLockRepo>,
    service: ShadowService,
    faults: FaultInjector,
    fault_plan: FaultPlan,
    ports: Ports,
    replicas: Vec<Replica>,
    answered: Arc<Mutex<Vec<Answered>>>,
    requests: u32,
    /// Writes whose entry has ever been on a shadow.
    seen: BTreeSet<WriteId>,
    /// The final results of the locks. A lock that finds an entry again reports the same result.
    results: BTreeMap<WriteId, Value>,
    claimed: Arc<AtomicU64>,
    verbose: bool,
}

fn shadow_name() -> ShadowName {
    ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into())
}

/// Faults of the shadow and the store. A tenth of the worlds have none; in the others each kind has its own random probability.
fn random_faults(random: &mut fastrand::Rng) -> FaultPlan {
    let mut rules = Vec::new();
    if random.u8(0..10) > 0 {
        for operation in ["put", "update", "read", "save", "load"] {
            let mut faults = vec!["delay:30ms", "delay:900ms", "not-sent", "refuse"];
            if !matches!(operation, "read" | "load") {
                faults.extend(["drop-answer", "lose", "late:100ms", "late:4s", "late:25s"]);
            }
            for fault in faults {
                let chance = f64::from(random.u8(0..8)) / 100.0;
                rules.push(format!("{operation}~{chance}={fault}"));
            }
        }
    }
    rules.push(format!("seed={}", random.u64(..)));
    rules.join(",").parse().expect("a plan of faults")
}

impl World {
    pub(crate) async fn new(seed: u64, broken: Broken) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock(Instant::now()));
        let seconds = clock.clone();
        let service = ShadowService::in_memory(ServiceConfig {
            clock: Arc::new(move || seconds.now().as_secs()),
            limits: ShadowLimits::default(),
        });
        let timer = Arc::new(TokioTimer::default());
        let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
        let events = LOCKS.map(|lock| created(lock_id(lock)));
        store.import(events.to_vec()).await.expect("imported");
        let fault_plan = random_faults(&mut random);
        let faults = FaultInjector::new(fault_plan.clone());
        let shadow = Arc::new(InMemoryShadow::new(service.clone(), shadow_name()));
        let shadow = BrokenShadow {
            inner: Arc::new(FaultyShadow::with(shadow, faults.clone())),
            broken,
        };
        let claimed = Arc::<AtomicU64>::default();
        let locks = BrokenStore {
            inner: store.clone(),
            broken,
            random: Mutex::new(random.fork()),
            claimed: claimed.clone(),
        };
        let ports = Ports {
            locks: Arc::new(FaultyLockRepo::new(Arc::new(locks), faults.clone())),
            history: store.clone(),
            shadow: Arc::new(shadow),
            clock,
            timer,
            ids: Arc::new(SequentialIds::default()),
        };
        let replicas = (0..REPLICAS).map(|_| Replica::start(ports.clone()));
        Self {
            seed,
            random,
            store,
            service,
            faults,
            fault_plan,
            replicas: replicas.collect(),
            ports,
            answered: Arc::default(),
            requests: 0,
            seen: BTreeSet::new(),
            results: BTreeMap::new(),
            claimed,
            verbose: std::env::var_os("SEED").is_some(),
        }
    }

    /// Prints what happens if a single seed is replayed.
    fn log(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            let at = self.ports.clock.now().since(NOW);
            println!("seed {} {at:>12?}  {}", self.seed, what());
        }
    }

    /// Executes random acts.
    pub(crate) async fn act(&mut self) {
        for _ in 0..ACTS {
            let pause = self.random.u64(0..600);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let replica = self.random.usize(0..REPLICAS);
            match self.random.u8(0..100) {
                0..40 => self.request(replica),
                40..70 => {
                    let lock = LOCKS[self.random.usize(0..LOCKS.len())];
                    self.run_lock(lock, Reliability::Faulty).await;
                }
                70..76 => self.withdraw(replica),
                76..84 => {
                    self.log(|| format!("replica {replica} crashes and is started again"));
                    self.replicas[replica].kill();
                    self.replicas[replica] = Replica::start(self.ports.clone());
                }
                84..87 => {
                    let seconds = self.random.u64(2..25);
                    self.log(|| format!("the shadows do not answer for {seconds} s"));
                    let outage = "update~0.5=lose,update~1=drop-answer,read~1=refuse";
                    self.faults.set(outage.parse().expect("a plan of faults"));
                    self.request(replica);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    self.faults.set(self.fault_plan.clone());
                }
                87..93 => {
                    let running = self.replicas[replica].running.clone();
                    let resumes = running.is_stopped();
                    let what = if resumes { "continues" } else { "stops" };
                    self.log(|| format!("replica {replica} {what}"));
                    match resumes {
                        true => running.resume(),
                        false => running.stop(),
                    }
                }
                _ => {
                    // Long enough for a lease to end.
                    let seconds = self.random.u64(1..20);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
            }
            self.note_entries();
        }
    }

    /// A client requests a random write from a replica.
    fn request(&mut self, replica: usize) {
        self.requests += 1;
        let lock = LOCKS[self.random.usize(0..LOCKS.len())];
        let n = self.random.u64(0..4);
        let index = Some(n).filter(|n| *n > 0);
        let (key, idempotency_key) = match self.random.u8(0..6) {
            // An idempotency key belongs to one command, which clients repeat through any replica.
            0 | 1 => (format!("repeated-{n}"), Some(format!("request-{n}"))),
            2 => (format!("common-{n}"), None),
            _ => (format!("key-{}", self.requests), None),
        };
        let is_unique = key.starts_with("key-");
        let command = WriteKey {
            lock: lock_id(lock),
            slot: slot(&key, index),
        };
        self.log(|| {
            format!("replica {replica} gets a request for {key} at {index:?}, lock {lock}")
        });
        let (writes, answered) = (self.replicas[replica].writes.clone(), self.answered.clone());
        self.replicas[replica].spawn(async move {
            let parse = |key: &String| IdempotencyKey::new(key).expect("an Idempotency-Key");
            let parsed = idempotency_key.as_ref().map(parse);
            let options = RequestOptions::default().with_idempotency_key(parsed);
            let answer = writes.write_key(&command, &principal(), options).await;
            answered.lock().expect("no panic").push(Answered {
                lock,
                key,
                idempotency_key,
                is_unique,
                answer,
            });
        });
    }

    fn withdraw(&mut self, replica: usize) {
        let seen: Vec<WriteId> = self.seen.iter().copied().collect();
        if seen.is_empty() {
            return;
        }
        let id = seen[self.random.usize(0..seen.len())];
        self.log(|| format!("replica {replica} gets a request to withdraw {id}"));
        let (writes, store) = (self.replicas[replica].writes.clone(), self.store.clone());
        self.replicas[replica].spawn(async move {
            if let Ok(Some(write)) = store.write(id).await {
                let _ = writes
                    .withdraw(write.lock, id, &principal(), RequestOptions::default())
                    .await;
            }
        });
    }

    fn body(&self, lock: u64) -> Option<Value> {
        let thing = thing(lock_id(lock));
        let document = self.service.document(thing.as_str(), &shadow_name())?;
        Some(document.stored_body())
    }

    fn shadow(&self, lock: u64) -> Option<ShadowSnapshot> {
        document_json::snapshot(&self.body(lock)?)
    }

    /// Notes the writes whose entries are on the shadows.
    fn note_entries(&mut self) {
        for lock in LOCKS {
            self.seen
                .extend(self.shadow(lock).map(|s| s.entries).unwrap_or_default());
        }
    }

    /// The lock connects and executes its entries by `seq`, with one update of the shadow for each. A faulty lock may execute only
    /// some of them, and its reports may be lost.
    async fn run_lock(&mut self, lock: u64, reliability: Reliability) {
        let faulty = reliability == Reliability::Faulty;
        let Some(body) = self.body(lock) else { return };
        let entries = body["state"]["desired"]["writeKey"].as_object().cloned();
        let mut entries: Vec<(WriteId, Value)> = entries
            .unwrap_or_default()
            .into_iter()
            .map(|(id, entry)| (id.parse().expect("an id"), entry))
            .collect();
        entries.sort_by_key(|(_, entry)| entry["seq"].as_u64());
        let now = self.ports.clock.now().as_secs();
        for (id, entry) in entries {
            self.seen.insert(id);
            if entry["expiresAt"].as_u64().is_some_and(|at| at < now) {
                continue;
            }
            if faulty && self.random.u8(0..5) == 0 {
                return;
            }
            let result = match self.results.get(&id) {
                Some(result) => result.clone(),
                None => match self.random.u8(0..5) {
                    0 => json!({ "status": "FAILED", "reason": "NoSpace" }),
                    1 if faulty => json!({ "status": "IN_PROGRESS" }),
                    _ => json!({ "status": "SUCCEEDED" }),
                },
            };
            let mut state = json!({ "reported": { "writeKeyResult": { id.to_string(): result } } });
            if result["status"] != "IN_PROGRESS" {
                self.results.insert(id, result.clone());
                state["desired"] = json!({ "writeKey": { id.to_string(): null } });
            }
            self.log(|| format!("lock {lock} reports {} for {id}", result["status"]));
            self.report(lock, &state, reliability).await;
        }
    }

    /// The lock updates its shadow, and each replica receives the report late. Replicas miss half of the reports of a faulty lock.
    async fn report(&mut self, lock: u64, state: &Value, reliability: Reliability) {
        let thing = thing(lock_id(lock));
        let body = json!({ "state": state }).to_string();
        let name = shadow_name();
        let answer = self.service.update(thing.as_str(), &name, body.as_bytes());
        let answer = answer.await.expect("a lock's report is accepted");
        let report = DeviceReport {
            thing,
            shadow_version: Some(ShadowVersion(answer.version)),
            results: document_json::results(&answer.body()),
            entries: document_json::entries(&answer.body()),
        };
        for replica in &mut self.replicas {
            if reliability == Reliability::Faulty && self.random.bool() {
                continue;
            }
            let (writes, report) = (replica.writes.clone(), report.clone());
            let delay = Duration::from_millis(self.random.u64(0..300));
            replica.spawn(async move {
                tokio::time::sleep(delay).await;
                // A report that cannot be settled is equivalent to one that was missed.
                let _ = writes.settle(&report).await;
            });
        }
    }

    /// Ends all faults and lets time pass.
    pub(crate) async fn come_to_rest(&mut self) {
        self.log(|| "all faults end".into());
        self.faults.set(FaultPlan::default());
        for replica in &mut self.replicas {
            replica.running.resume();
        }
        let end = Instant::now() + REST;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // In half of the worlds the locks stay offline, so that writes expire.
            if self.seed.is_multiple_of(2) {
                for lock in LOCKS {
                    self.run_lock(lock, Reliability::Reliable).await;
                }
            }
            self.note_entries();
        }
    }

    async fn lock(&self, lock: u64) -> LockSnapshot {
        let known = self.store.load(lock_id(lock)).await;
        known.expect("the store answers").expect("the lock exists")
    }

    async fn stream(&self, lock: u64) -> Vec<RecordedEvent> {
        let events = self.store.events(lock_id(lock), LockVersion(1), usize::MAX);
        events.await.expect("the store answers")
    }

    async fn stored(&self, id: WriteId) -> Option<Write> {
        self.store.write(id).await.expect("the store answers")
    }

    /// Checks I1 to I7.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut streams = BTreeMap::new();
        for lock in LOCKS {
            let (stream, snapshot, shadow) = (
                self.stream(lock).await,
                self.lock(lock).await,
                self.shadow(lock),
            );
            let of_lock = |v: invariants::Violation| format!("lock {lock}: {v}");
            invariants::i1_stream(&stream).map_err(of_lock)?;
            invariants::i6_settled_once(&stream).map_err(of_lock)?;
            invariants::i4_all_end(&snapshot, self.ports.clock.now()).map_err(of_lock)?;
            invariants::i5_shadow(shadow.as_ref(), &snapshot).map_err(of_lock)?;
            streams.insert(lock, stream);
        }
        for id in &self.seen {
            let state = self.stored(*id).await.map(|write| write.state);
            if matches!(state, Some(WriteState::Aborted { .. })) {
                return Err(format!("I2: the lock saw {id}, which was aborted"));
            }
        }
        for (id, result) in &self.results {
            let stored = self.stored(*id).await;
            let stored = stored.ok_or_else(|| format!("I6: {id} is unknown"))?;
            if !stored.is_settled_by_lock() {
                let (state, status) = (stored.state.name(), &result["status"]);
                return Err(format!("I6: {id} is {state}, and its result is {status}"));
            }
        }
        let answered = self.answered.lock().expect("no panic").clone();
        for answered in &answered {
            let stream = &streams[&answered.lock];
            self.check_answer(answered, stream).await?;
        }
        check_idempotency(&answered)
    }

    async fn check_answer(
        &self,
        answered: &Answered,
        stream: &[RecordedEvent],
    ) -> Result<(), String> {
        let requested = |key: &str| {
            stream.iter().any(|e| {
                matches!(&e.event, LockEvent::KeyWriteRequested(slot) if slot.key.as_str() == key)
            })
        };
        match &answered.answer {
            Ok(receipt) => invariants::i1_answered(receipt, stream).map_err(|v| v.to_string()),
            Err(WriteError::Undecided(id)) => match self.stored(*id).await {
                Some(write) if write.intent().is_none() => Ok(()),
                other => Err(format!(
                    "I3: {id} was answered 504 and is undecided: {other:?}"
                )),
            },
            Err(_) if answered.is_unique && requested(&answered.key) => {
                Err(format!("I2: {answered:?}"))
            }
            Err(_) => Ok(()),
        }
    }

    /// How often each kind of answer and event occurred.
    pub(crate) async fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::from([("taken over", self.claimed.load(Ordering::Relaxed))]);
        for answered in self.answered.lock().expect("no panic").iter() {
            let answer = match &answered.answer {
                Ok(WriteReceipt { event: Some(_), .. }) => "200",
                Ok(_) => "200 without an event",
                Err(WriteError::NotUpdated(_)) => "502",
                Err(WriteError::Undecided(_)) => "504",
                Err(WriteError::StillRunning) => "409",
                Err(_) => "other answers",
            };
            *counts.entry(answer).or_default() += 1;
        }
        for lock in LOCKS {
            for recorded in self.stream(lock).await {
                *counts.entry(recorded.event.name()).or_default() += 1;
                let late = match recorded.event {
                    LockEvent::KeyWriteConfirmed { late, .. } => late,
                    LockEvent::KeyWriteFailed { late, .. } => late,
                    _ => false,
                };
                *counts.entry("late").or_default() += u64::from(late);
            }
        }
        counts
    }

    /// All answers and events, as text.
    pub(crate) async fn record(&self) -> String {
        let mut record = format!("{:#?}\n", self.answered.lock().expect("no panic"));
        for lock in LOCKS {
            record.push_str(&format!("{:#?}\n", self.stream(lock).await));
        }
        record
    }
}

/// How well a lock and the delivery of its reports work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reliability {
    Reliable,
    Faulty,
}

/// I7: all successful answers to one idempotency key are the same.
fn check_idempotency(answered: &[Answered]) -> Result<(), String> {
    let mut receipts: BTreeMap<(u64, &str), &WriteReceipt> = BTreeMap::new();
    for request in answered {
        let Some(key) = &request.idempotency_key else {
            continue;
        };
        let receipt = match &request.answer {
            Ok(receipt) => receipt,
            // A successful answer is repeated, whichever rule would reject the request now.
            Err(WriteError::Rejected(why)) if receipts.contains_key(&(request.lock, key)) => {
                return Err(format!("I7: {key} was answered, and then: {why}"));
            }
            Err(_) => continue,
        };
        let first = receipts.entry((request.lock, key)).or_insert(receipt);
        if *first != receipt {
            return Err(format!("I7: {key} was answered {first:?} and {receipt:?}"));
        }
    }
    Ok(())
}
