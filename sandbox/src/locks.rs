use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use keywright_sqlite::OpenError;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::behaviour::Behaviour;
use crate::context::Context;
use crate::lock_memory::LockMemory;
use crate::lock_memory_file::MemoryFile;
use crate::shadow_link::{Deltas, Shadows, Signal};
use crate::virtual_lock::VirtualLock;

/// Virtual locks that run until this is dropped.
pub struct VirtualLocks {
    context: Context,
    wakers: Wakers,
    tasks: JoinSet<()>,
}

/// The notifications that wake the locks, by thing.
#[derive(Clone, Default)]
struct Wakers(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

impl VirtualLocks {
    /// Opens the file in which the locks keep their memories, and subscribes to the shadows. `clock` returns epoch seconds. With
    /// `others`, a thing without a lock gets one with this behaviour when its shadow has a delta.
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
        let context = Context::new(link, clock, file, memories);
        let wakers = Wakers::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(wake_locks(deltas, context.clone(), wakers.clone(), others));
        Ok(Self {
            context,
            wakers,
            tasks,
        })
    }

    /// Starts the lock of a thing.
    pub fn add(&mut self, thing: &str, behaviour: Behaviour) {
        let lock = VirtualLock::new(thing, behaviour, self.context.clone());
        self.tasks.spawn(lock.run(self.wakers.add(thing)));
    }

    /// What the lock of a thing has in its memory.
    pub fn memory(&self, thing: &str) -> LockMemory {
        self.context.with_memory(thing, LockMemory::clone)
    }
}

impl Wakers {
    fn add(&self, thing: &str) -> Arc<Notify> {
        let waker = Arc::new(Notify::new());
        self.with(|wakers| wakers.insert(thing.to_owned(), waker.clone()));
        waker
    }

    fn wake_all(&self) {
        self.with(|wakers| wakers.values().for_each(|waker| waker.notify_one()));
    }

    /// Returns whether the thing has a lock.
    fn wake(&self, thing: &str) -> bool {
        self.with(|wakers| wakers.get(thing).map(|waker| waker.notify_one()))
            .is_some()
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<String, Arc<Notify>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes each lock whose shadow has a new delta. All locks share one subscription.
async fn wake_locks(
    mut deltas: Deltas,
    context: Context,
    wakers: Wakers,
    others: Option<Behaviour>,
) {
    let mut tasks = JoinSet::new();
    while let Some(signal) = deltas.next().await {
        let thing = match signal {
            Signal::All => {
                wakers.wake_all();
                continue;
            }
            Signal::One(thing) => thing,
        };
        if wakers.wake(&thing) {
            continue;
        }
        if let Some(behaviour) = &others {
            // The new lock reads its shadow when it starts.
            let lock = VirtualLock::new(&thing, behaviour.clone(), context.clone());
            tasks.spawn(lock.run(wakers.add(&thing)));
        }
    }
}
