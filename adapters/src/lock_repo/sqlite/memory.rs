//! What the process knows of the store besides its tables.

use std::collections::HashMap;
use std::sync::Arc;

use keywright_domain::model::{LockId, LockSnapshot};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::tail::{Change, Tail};

/// The maximum sum of the weights of cached locks. A unit is about 150 bytes.
const MAX_WEIGHT: u64 = 1_000_000;

/// The number of locks for which the cache is prepared at first.
const ESTIMATED_LOCKS: usize = 1000;

/// The maximum number of locks that are being read into the cache.
const MAX_LOADING: usize = 10_000;

/// The tail of the log, and a cache of locks. It is complete as long as no other process has written to the file.
#[derive(Debug)]
pub(super) struct Memory {
    /// The number of takeovers (see [`ProcessLock`](super::other_processes::ProcessLock)) when this was complete.
    complete_at: Option<u64>,
    pub(super) tail: Tail,
    cache: Cache<LockId, Arc<LockSnapshot>, Size>,
    /// Locks that are being read into the cache. A change of a lock removes it, since what is read may be older.
    loading: HashMap<LockId, u64>,
    loads: u64,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            complete_at: None,
            tail: Tail::default(),
            cache: Cache::with_weighter(ESTIMATED_LOCKS, MAX_WEIGHT, Size),
            loading: HashMap::new(),
            loads: 0,
        }
    }

    /// Whether the tables and this have everything that is saved, if there have been so many takeovers.
    pub(super) fn is_complete(&self, takeovers: Option<u64>) -> bool {
        takeovers.is_some() && self.complete_at == takeovers
    }

    pub(super) fn set_complete(&mut self, takeovers: Option<u64>) {
        self.complete_at = takeovers;
    }

    /// Forgets everything, because another process has written to the file.
    pub(super) fn clear(&mut self) {
        self.complete_at = None;
        self.tail = Tail::default();
        self.clear_cache();
    }

    pub(super) fn clear_cache(&mut self) {
        self.cache.clear();
        self.loading.clear();
    }

    pub(super) fn add(&mut self, change: Change) {
        self.loading.remove(&change.snapshot.lock.id);
        let snapshot = change.snapshot.clone();
        self.cache.insert(snapshot.lock.id, snapshot);
        self.tail.add(change);
    }

    /// The lock, if it is known without reading the tables.
    pub(super) fn lock(&self, lock: LockId) -> Option<&Arc<LockSnapshot>> {
        match self.cache.get(&lock) {
            Some(snapshot) => Some(snapshot),
            None => self.tail.lock(lock).map(|changes| &changes.snapshot),
        }
    }

    /// Notes that a lock is being read from the tables, and returns the number of the reading.
    pub(super) fn start_load(&mut self, lock: LockId) -> u64 {
        if self.loading.len() >= MAX_LOADING {
            self.loading.clear();
        }
        self.loads += 1;
        self.loading.insert(lock, self.loads);
        self.loads
    }

    /// Caches a lock that was read, unless it has changed since the reading began.
    pub(super) fn finish_load(&mut self, lock: LockId, load: u64, found: Option<LockSnapshot>) {
        if self.loading.get(&lock) == Some(&load) {
            self.loading.remove(&lock);
            if let Some(snapshot) = found {
                self.cache.insert(lock, Arc::new(snapshot));
            }
        }
    }
}

/// Measures the size of a lock.
#[derive(Clone, Debug)]
struct Size;

impl Weighter<LockId, Arc<LockSnapshot>> for Size {
    fn weight(&self, _: &LockId, snapshot: &Arc<LockSnapshot>) -> u64 {
        let writes = snapshot.unfinished.len() + snapshot.uncleared.len();
        let parts = snapshot.lock.keys.len() + snapshot.lock.unsettled.len() + 4 * writes;
        8 + parts as u64
    }
}
