//! Virtual locks, and what wakes them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use keywright_sqlite::OpenError;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::behaviour::{Behaviour, Card, Offline};
use crate::device;
use crate::device::{Entry, LockMemory, Outcome, Task};
use crate::link::{Deltas, Link, News, Shadows};
use crate::memory_file::MemoryFile;

/// How long a lock waits before it tries again what the service or its memory did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// How many writes a silent lock keeps in mind as done.
const MOST_DONE: usize = 64;

/// Locks that live as long as this does.
pub struct VirtualLocks {
    world: World,
    bells: Bells,
    tasks: JoinSet<()>,
}

/// By the thing, what wakes its lock.
type Bells = Arc<Mutex<HashMap<String, Arc<Notify>>>>;

/// What all locks share.
#[derive(Clone)]
struct World {
    link: Link,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    file: MemoryFile,
    memories: Arc<Mutex<HashMap<String, LockMemory>>>,
    /// When the first of them found a write: there the scripts begin.
    first_write: Arc<OnceLock<Instant>>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtualLocks {
    /// Locks that read and answer on these shadows, and whose memories are kept in a file. `clock` gives epoch seconds. A thing that no lock was added for gets one that behaves like `others`,
    /// if that is given, as soon as its shadow asks for something.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(
        path: &Path,
        shadows: Shadows,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        others: Option<Behaviour>,
    ) -> Result<Self, OpenError> {
        let (file, memories) = MemoryFile::open(path)?;
        let (link, deltas) = shadows.connect();
        let world = World {
            link,
            clock,
            file,
            memories: Arc::new(Mutex::new(memories)),
            first_write: Arc::default(),
        };
        let bells = Bells::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(ring(deltas, world.clone(), Arc::clone(&bells), others));
        Ok(Self {
            world,
            bells,
            tasks,
        })
    }

    /// Starts the lock of a thing.
    pub fn add(&mut self, thing: &str, behaviour: Behaviour) {
        self.world
            .start(thing, behaviour, &self.bells, &mut self.tasks);
    }

    /// What the lock of a thing holds.
    pub fn memory(&self, thing: &str) -> LockMemory {
        let memories = guard(&self.world.memories);
        memories.get(thing).cloned().unwrap_or_default()
    }
}

impl World {
    fn start(&self, thing: &str, behaviour: Behaviour, bells: &Bells, tasks: &mut JoinSet<()>) {
        let bell = Arc::new(Notify::new());
        guard(bells).insert(thing.to_owned(), bell.clone());
        let lock = VirtualLock {
            thing: thing.to_owned(),
            behaviour,
            world: self.clone(),
            done: Vec::new(),
        };
        tasks.spawn(lock.live(bell));
    }

    /// Since the first write.
    fn elapsed(&self) -> Option<Duration> {
        self.first_write.get().map(Instant::elapsed)
    }
}

/// Wakes a lock whenever its shadow has something new: all of them share one subscription.
async fn ring(mut deltas: Deltas, world: World, bells: Bells, others: Option<Behaviour>) {
    let mut tasks = JoinSet::new();
    while let Some(news) = deltas.next().await {
        let News::Of(thing) = news else {
            guard(&bells).values().for_each(|bell| bell.notify_one());
            continue;
        };
        let bell = guard(&bells).get(&thing).cloned();
        match (bell, &others) {
            (Some(bell), _) => bell.notify_one(),
            // It reads its shadow when it starts.
            (None, Some(behaviour)) => {
                world.start(&thing, behaviour.clone(), &bells, &mut tasks);
            }
            (None, None) => {}
        }
    }
}

struct VirtualLock {
    thing: String,
    behaviour: Behaviour,
    world: World,
    /// What a silent lock has done and not answered.
    done: Vec<String>,
}

impl VirtualLock {
    async fn live(mut self, bell: Arc<Notify>) {
        match self.behaviour.offline {
            Offline::Never => {}
            Offline::For(span) => {
                info!(thing = self.thing, "virtual lock is offline for {span:?}");
                tokio::time::sleep(span).await;
                info!(thing = self.thing, "virtual lock is online");
            }
            Offline::Always => {
                info!(thing = self.thing, "virtual lock is offline");
                return;
            }
        }
        loop {
            self.be_online().await;
            match self.step().await {
                Ok(true) => {}
                Ok(false) => bell.notified().await,
                Err(error) => {
                    warn!(thing = self.thing, %error, "virtual lock tries again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// How much longer its script leaves it without a connection.
    fn offline_for(&self) -> Duration {
        let elapsed = self.world.elapsed();
        elapsed.map_or(Duration::ZERO, |elapsed| {
            self.behaviour.offline_for(elapsed)
        })
    }

    async fn be_online(&self) {
        loop {
            let span = self.offline_for();
            if span.is_zero() {
                return;
            }
            info!(thing = self.thing, "virtual lock is offline for {span:?}");
            tokio::time::sleep(span).await;
        }
    }

    /// Does the next thing that is asked for; `false`: there is none.
    async fn step(&mut self) -> Result<bool, String> {
        let Some(task) = self.next().await? else {
            return Ok(false);
        };
        self.world.first_write.get_or_init(Instant::now);
        if self.offline_for().is_zero() {
            self.run(task).await?;
        }
        Ok(true)
    }

    /// Reads the shadow before each write, so that one which was taken off meanwhile is not done.
    async fn next(&self) -> Result<Option<Task>, String> {
        let desired = self.world.link.desired(&self.thing).await?;
        let entries = device::entries(&desired);
        let now = (self.world.clock)();
        let memories = guard(&self.world.memories);
        Ok(match memories.get(&self.thing) {
            Some(memory) => memory.next(&entries, &self.done, now),
            None => LockMemory::default().next(&entries, &self.done, now),
        })
    }

    async fn run(&mut self, task: Task) -> Result<(), String> {
        let elapsed = self.world.elapsed().unwrap_or_default();
        let behaviour = self.behaviour.at(elapsed).into_owned();
        let (id, result) = match task {
            Task::AnswerAgain(id, result) => (id, result),
            Task::Do(entry) => {
                self.work_on(&entry, &behaviour).await?;
                let result = self.settle(&entry, &behaviour).await?;
                (entry.id, result)
            }
        };
        if behaviour.silent {
            if self.done.len() >= MOST_DONE {
                self.done.remove(0);
            }
            self.done.push(id);
            return Ok(());
        }
        let answer = device::answer(&id, &result);
        self.report(&answer).await?;
        if behaviour.twice {
            info!(
                thing = self.thing,
                write = id,
                "virtual lock reports it again"
            );
            self.report(&answer).await?;
        }
        Ok(())
    }

    async fn work_on(&self, entry: &Entry, behaviour: &Behaviour) -> Result<(), String> {
        if behaviour.card != Card::NotNeeded && !behaviour.silent {
            self.report(&device::in_progress(&entry.id)).await?;
        }
        let span = match behaviour.card {
            Card::After(span) => span,
            Card::NotNeeded | Card::Never => behaviour.latency,
        };
        tokio::time::sleep(span).await;
        Ok(())
    }

    /// Remembers first and answers then, so that a lock which stops in between does not do it twice.
    async fn settle(&self, entry: &Entry, behaviour: &Behaviour) -> Result<Outcome, String> {
        let mut memory = guard(&self.world.memories)
            .get(&self.thing)
            .cloned()
            .unwrap_or_default();
        let result = memory.settle(entry, behaviour);
        let kept = self.world.file.keep(&self.thing, &memory).await;
        kept.map_err(|e| e.to_string())?;
        let (write, held) = (&entry.id, memory.keys.len());
        match &result {
            Outcome::Succeeded {
                key_index_number: slot,
            } => info!(
                thing = self.thing,
                write, slot, held, "virtual lock has the key"
            ),
            Outcome::Failed { reason } => {
                info!(thing = self.thing, write, reason, "virtual lock refuses");
            }
        }
        guard(&self.world.memories).insert(self.thing.clone(), memory);
        Ok(result)
    }

    async fn report(&self, body: &Value) -> Result<(), String> {
        self.be_online().await;
        self.world.link.update(&self.thing, body).await
    }
}
