use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock_memory::LockMemory;
use crate::lock_memory_file::{MemoryFile, MemoryFileError};
use crate::shadow_link::Link;

/// What all virtual locks share. Clones share everything.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) link: Link,
    /// Returns epoch seconds.
    pub(crate) clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    file: MemoryFile,
    memories: Arc<Mutex<HashMap<String, LockMemory>>>,
    /// When the first of the locks found a write. The scripts of all locks start then.
    first_write: Arc<OnceLock<Instant>>,
}

impl Context {
    pub(crate) fn new(
        link: Link,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        file: MemoryFile,
        memories: HashMap<String, LockMemory>,
    ) -> Self {
        Self {
            link,
            clock,
            file,
            memories: Arc::new(Mutex::new(memories)),
            first_write: Arc::default(),
        }
    }

    /// Calls `read` with a lock's memory, which is empty for a lock that never wrote a key.
    pub(crate) fn with_memory<T>(&self, thing: &str, read: impl FnOnce(&LockMemory) -> T) -> T {
        match self.memories().get(thing) {
            Some(memory) => read(memory),
            None => read(&LockMemory::default()),
        }
    }

    /// Saves a lock's memory durably.
    pub(crate) async fn save(
        &self,
        thing: &str,
        memory: LockMemory,
    ) -> Result<(), MemoryFileError> {
        self.file.save(thing, &memory).await?;
        self.memories().insert(thing.to_owned(), memory);
        Ok(())
    }

    pub(crate) fn start_scripts(&self) {
        self.first_write.get_or_init(Instant::now);
    }

    /// The time since the scripts started. `None`: no lock has found a write yet.
    pub(crate) fn script_time(&self) -> Option<Duration> {
        self.first_write.get().map(Instant::elapsed)
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, LockMemory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
