use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use keywright_adapters::decorator::{FaultPlan, Faults, FaultyLockRepo, FaultyShadow};
use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::{InMemoryShadow, document};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{LockEvent, LockSnapshot, RecordedEvent, Write, WriteState, *};
use keywright_domain::policy::{Limits, WriteKey};
use keywright_domain::ports::*;
use keywright_domain::{
    KeyWrites, Ports, RequestOptions, Settings, WriteError, WriteReceipt, invariants as holds,
};
use keywright_shadow::{Limits as ShadowLimits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::SequentialIds;
use keywright_testkit::samples::{NOW, created, lock_id, principal, slot, thing};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::broken::{Broken, BrokenShadow, BrokenStore};

const REPLICAS: usize = 3;
const LOCKS: [u64; 2] = [1, 2];

/// How many things happen before everything works again.
const ACTS: u32 = 60;

/// How long everything may take to come to rest: leases, the time to live, and the looks after those.
const REST: Duration = Duration::from_secs(200);

/// The wall clock, which goes with the time of the simulation.
struct SimulatedClock(Instant);

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        NOW.after(self.0.elapsed())
    }
}

/// What a client asked and was told.
#[derive(Clone, Debug)]
struct Told {
    lock: u64,
    key: String,
    name: Option<String>,
    /// Nobody else asks for this key.
    alone: bool,
    answer: Result<WriteReceipt, WriteError>,
}

/// A process: its use cases, its tasks, and whether they run at the moment (SIGSTOP, SIGCONT).
struct Replica {
    writes: Arc<KeyWrites>,
    running: Running,
    tasks: Vec<JoinHandle<()>>,
}

/// Whether a process runs; what waits for that is woken in a fixed order, which a runtime's own channels do not promise.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Running {
    fn stopped(&self) -> MutexGuard<'_, (bool, Vec<Waker>)> {
        self.0.lock().expect("no panic")
    }

    fn is_on(&self, cx: &Context<'_>) -> bool {
        let mut stopped = self.stopped();
        if stopped.0 {
            stopped.1.push(cx.waker().clone());
        }
        !stopped.0
    }

    fn stop(&self) {
        self.stopped().0 = true;
    }

    fn go_on(&self) {
        let mut stopped = self.stopped();
        stopped.0 = false;
        stopped.1.drain(..).for_each(Waker::wake);
    }
}

impl Replica {
    fn start(ports: Ports) -> Self {
        let limits = Limits {
            time_to_live: Duration::from_secs(60),
            confirm_within: Duration::from_secs(5),
            clear_within: Duration::from_secs(5),
            ..Limits::default()
        };
        let settings = Settings {
            limits,
            ..Settings::default()
        };
        let writes = KeyWrites::new(ports, settings).expect("the settings are valid");
        let mut replica = Self {
            writes: Arc::new(writes),
            running: Running::default(),
            tasks: Vec::new(),
        };
        let writes = replica.writes.clone();
        replica.spawn(async move {
            loop {
                while matches!(writes.recover_next().await, Ok(Some(_))) {}
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let writes = replica.writes.clone();
        replica.spawn(async move {
            let _ = writes.reconcile_all(None, 100).await;
            loop {
                let _ = writes.maintain(None, 100).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        replica
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        let mut task = Box::pin(task);
        self.tasks
            .push(tokio::spawn(poll_fn(move |cx| match running.is_on(cx) {
                true => task.as_mut().poll(cx),
                false => Poll::Pending,
            })));
    }

    /// SIGKILL.
    fn die(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

pub(crate) struct World {
    seed: u64,
    random: fastrand::Rng,
    store: Arc<InMemoryLockRepo>,
    service: ShadowService,
    faults: Faults,
    trouble: FaultPlan,
    ports: Ports,
    replicas: Vec<Replica>,
    told: Arc<Mutex<Vec<Told>>>,
    asked: u32,
    /// What a lock has ever found on its shadow, and what it said of it: asked again, it says the same.
    seen: BTreeSet<WriteId>,
    said: BTreeMap<WriteId, Value>,
    claimed: Arc<AtomicU64>,
    aloud: bool,
}

fn shadow_name() -> ShadowName {
    ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into())
}

/// A tenth of the worlds have no trouble but dying replicas; in the others each kind of fault has its own chance.
fn trouble(random: &mut fastrand::Rng) -> FaultPlan {
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
        let trouble = trouble(&mut random);
        let faults = Faults::new(trouble.clone());
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
            trouble,
            replicas: replicas.collect(),
            ports,
            told: Arc::default(),
            asked: 0,
            seen: BTreeSet::new(),
            said: BTreeMap::new(),
            claimed,
            aloud: std::env::var_os("SEED").is_some(),
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            let at = self.ports.clock.now().since(NOW);
            println!("seed {} {at:>12?}  {}", self.seed, what());
        }
    }

    pub(crate) async fn live(&mut self) {
        for _ in 0..ACTS {
            let pause = self.random.u64(0..600);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let replica = self.random.usize(0..REPLICAS);
            match self.random.u8(0..100) {
                0..40 => self.ask(replica),
                40..70 => {
                    let lock = LOCKS[self.random.usize(0..LOCKS.len())];
                    self.visit(lock, true).await;
                }
                70..76 => self.withdraw(replica),
                76..84 => {
                    self.tell(|| format!("replica {replica} dies and is started again"));
                    self.replicas[replica].die();
                    self.replicas[replica] = Replica::start(self.ports.clone());
                }
                84..87 => {
                    let seconds = self.random.u64(2..25);
                    self.tell(|| format!("the shadows do not answer for {seconds} s"));
                    let nothing = "update~0.5=lose,update~1=drop-answer,read~1=refuse";
                    self.faults.set(nothing.parse().expect("a plan of faults"));
                    self.ask(replica);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    self.faults.set(self.trouble.clone());
                }
                87..93 => {
                    let running = self.replicas[replica].running.clone();
                    let stops = !running.stopped().0;
                    let what = if stops { "stops" } else { "goes on" };
                    self.tell(|| format!("replica {replica} {what}"));
                    match stops {
                        true => running.stop(),
                        false => running.go_on(),
                    }
                }
                _ => {
                    // Long enough for a lease to end.
                    let seconds = self.random.u64(1..20);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
            }
            self.look_at_shadows();
        }
    }

    fn ask(&mut self, replica: usize) {
        self.asked += 1;
        let lock = LOCKS[self.random.usize(0..LOCKS.len())];
        let n = self.random.u64(0..4);
        let index = Some(n).filter(|n| *n > 0);
        let (key, name) = match self.random.u8(0..6) {
            // A name stands for one command, which may be sent again through any replica.
            0 | 1 => (format!("named-{n}"), Some(format!("name-{n}"))),
            2 => (format!("common-{n}"), None),
            _ => (format!("key-{}", self.asked), None),
        };
        let alone = key.starts_with("key-");
        let command = WriteKey {
            lock: lock_id(lock),
            slot: slot(&key, index),
        };
        self.tell(|| {
            format!("replica {replica} is asked to write {key} at {index:?} to lock {lock}")
        });
        let (writes, told) = (self.replicas[replica].writes.clone(), self.told.clone());
        self.replicas[replica].spawn(async move {
            let options = RequestOptions {
                idempotency_key: name
                    .as_deref()
                    .map(|n| IdempotencyKey::new(n).expect("a name")),
                deadline: None,
            };
            let answer = writes.write_key(&command, &principal(), options).await;
            told.lock().expect("no panic").push(Told {
                lock,
                key,
                name,
                alone,
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
        self.tell(|| format!("replica {replica} is asked to withdraw {id}"));
        let (writes, store) = (self.replicas[replica].writes.clone(), self.store.clone());
        self.replicas[replica].spawn(async move {
            if let Ok(Some(write)) = store.write(id).await {
                let _ = writes.withdraw(write.lock, id, &principal(), None).await;
            }
        });
    }

    fn body(&self, lock: u64) -> Option<Value> {
        let thing = thing(lock_id(lock));
        let document = self.service.document(thing.as_str(), &shadow_name())?;
        Some(document.stored_body())
    }

    fn shadow(&self, lock: u64) -> Option<ShadowSnapshot> {
        document::snapshot(&self.body(lock)?)
    }

    fn look_at_shadows(&mut self) {
        for lock in LOCKS {
            self.seen
                .extend(self.shadow(lock).map(|s| s.entries).unwrap_or_default());
        }
    }

    /// The lock connects, does what it finds, by `seq`, and says so in one update each. With `careless`, it may do only a
    /// part, and what it says may not be heard.
    async fn visit(&mut self, lock: u64, careless: bool) {
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
            if careless && self.random.u8(0..5) == 0 {
                return;
            }
            let said = match self.said.get(&id) {
                Some(said) => said.clone(),
                None => match self.random.u8(0..5) {
                    0 => json!({ "status": "FAILED", "reason": "NoSpace" }),
                    1 if careless => json!({ "status": "IN_PROGRESS" }),
                    _ => json!({ "status": "SUCCEEDED" }),
                },
            };
            let mut state = json!({ "reported": { "writeKeyResult": { id.to_string(): said } } });
            if said["status"] != "IN_PROGRESS" {
                self.said.insert(id, said.clone());
                state["desired"] = json!({ "writeKey": { id.to_string(): null } });
            }
            self.tell(|| format!("lock {lock} says of {id}: {}", said["status"]));
            self.report(lock, &state, careless).await;
        }
    }

    async fn report(&mut self, lock: u64, state: &Value, careless: bool) {
        let thing = thing(lock_id(lock));
        let body = json!({ "state": state }).to_string();
        let name = shadow_name();
        let answer = self.service.update(thing.as_str(), &name, body.as_bytes());
        let answer = answer.await.expect("a lock's report is accepted");
        let report = DeviceReport {
            thing,
            shadow_version: Some(ShadowVersion(answer.version)),
            results: document::results(&answer.body()),
            entries: document::entries(&answer.body()),
        };
        for replica in &mut self.replicas {
            if careless && self.random.bool() {
                continue;
            }
            let (writes, report) = (replica.writes.clone(), report.clone());
            let late = Duration::from_millis(self.random.u64(0..300));
            replica.spawn(async move {
                tokio::time::sleep(late).await;
                // One that cannot be settled is one that was missed.
                let _ = writes.settle(&report).await;
            });
        }
    }

    /// Nothing goes wrong any more, and time passes.
    pub(crate) async fn come_to_rest(&mut self) {
        self.tell(|| "from now on everything works".into());
        self.faults.set(FaultPlan::default());
        for replica in &mut self.replicas {
            replica.running.go_on();
        }
        let end = Instant::now() + REST;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // Half of the time the locks are silent, so that writes expire.
            if self.seed.is_multiple_of(2) {
                for lock in LOCKS {
                    self.visit(lock, false).await;
                }
            }
            self.look_at_shadows();
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

    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut streams = BTreeMap::new();
        for lock in LOCKS {
            let (stream, snapshot, shadow) = (
                self.stream(lock).await,
                self.lock(lock).await,
                self.shadow(lock),
            );
            let said = |v: holds::Violation| format!("lock {lock}: {v}");
            holds::i1_stream(&stream).map_err(said)?;
            holds::i6_settled_once(&stream).map_err(said)?;
            holds::i4_all_end(&snapshot, self.ports.clock.now()).map_err(said)?;
            holds::i5_shadow(shadow.as_ref(), &snapshot).map_err(said)?;
            streams.insert(lock, stream);
        }
        for id in &self.seen {
            let stored = self.stored(*id).await;
            if matches!(
                stored,
                Some(Write {
                    state: WriteState::Aborted { .. },
                    ..
                })
            ) {
                return Err(format!("I2: the lock saw {id}, which was aborted"));
            }
        }
        for (id, said) in &self.said {
            let stored = self
                .stored(*id)
                .await
                .ok_or_else(|| format!("I6: {id} is unknown"))?;
            if !stored.is_settled_by_lock() {
                let state = stored.state.name();
                return Err(format!(
                    "I6: the lock said of {id} {}, and it is {state}",
                    said["status"]
                ));
            }
        }
        let told = self.told.lock().expect("no panic").clone();
        for told in &told {
            self.check_told(told, &streams[&told.lock]).await?;
        }
        check_names(&told)
    }

    async fn check_told(&self, told: &Told, stream: &[RecordedEvent]) -> Result<(), String> {
        let requested = |key: &str| {
            stream.iter().any(|e| {
                matches!(&e.event, LockEvent::KeyWriteRequested(slot) if slot.key.as_str() == key)
            })
        };
        match &told.answer {
            Ok(written) => holds::i1_answered(written, stream).map_err(|v| v.to_string()),
            Err(WriteError::Undecided(id)) => match self.stored(*id).await {
                Some(write) if write.intent().is_none() => Ok(()),
                other => Err(format!("I3: the 504 of {id} is neither: {other:?}")),
            },
            Err(_) if told.alone && requested(&told.key) => Err(format!("I2: {told:?}")),
            Err(_) => Ok(()),
        }
    }

    /// What happened how often.
    pub(crate) async fn tally(&self) -> BTreeMap<&'static str, u64> {
        let mut tally = BTreeMap::from([("taken over", self.claimed.load(Ordering::Relaxed))]);
        for told in self.told.lock().expect("no panic").iter() {
            let answer = match &told.answer {
                Ok(WriteReceipt { event: Some(_), .. }) => "200",
                Ok(_) => "200 without an event",
                Err(WriteError::NotUpdated(_)) => "502",
                Err(WriteError::Undecided(_)) => "504",
                Err(WriteError::StillRunning) => "409",
                Err(_) => "other answers",
            };
            *tally.entry(answer).or_default() += 1;
        }
        for lock in LOCKS {
            for recorded in self.stream(lock).await {
                *tally.entry(recorded.event.name()).or_default() += 1;
                let late = match recorded.event {
                    LockEvent::KeyWriteConfirmed { late, .. } => late,
                    LockEvent::KeyWriteFailed { late, .. } => late,
                    _ => false,
                };
                *tally.entry("late").or_default() += u64::from(late);
            }
        }
        tally
    }

    /// All that came of it, as text.
    pub(crate) async fn story(&self) -> String {
        let mut story = format!("{:#?}\n", self.told.lock().expect("no panic"));
        for lock in LOCKS {
            story.push_str(&format!("{:#?}\n", self.stream(lock).await));
        }
        story
    }
}

/// I7: one name, one answer, as long as it is no failure.
fn check_names(told: &[Told]) -> Result<(), String> {
    let mut answered: BTreeMap<(u64, &str), &WriteReceipt> = BTreeMap::new();
    for told in told {
        let Some(name) = &told.name else { continue };
        let written = match &told.answer {
            Ok(written) => written,
            // What was answered once is answered again, whatever stands against it now.
            Err(WriteError::Rejected(why)) if answered.contains_key(&(told.lock, name)) => {
                return Err(format!("I7: {name} was answered, and then: {why}"));
            }
            Err(_) => continue,
        };
        let first = answered.entry((told.lock, name)).or_insert(written);
        if *first != written {
            return Err(format!("I7: {name} was answered {first:?} and {written:?}"));
        }
    }
    Ok(())
}
