//! The bounds of a page of a list over all locks, and the locks that it loads to decide about access.

use std::collections::HashMap;
use std::sync::Arc;

use super::key_writes::KeyWrites;
use crate::model::{Lock, LockId};
use crate::ports::RepoError;

/// How many rows are read from the store at a time.
pub(super) const READ_AT_ONCE: usize = 500;

/// How many times one page reads: it looks at 10,000 rows. A principal whose rows are rare gets a page with few of them, or none, and
/// continues after it.
pub(super) const MAX_READS: usize = 20;

/// How many locks one page loads.
const MAX_LOCKS: usize = 500;

/// The locks of a page, each of which is loaded once. `None`: the lock is not shown.
#[derive(Default)]
pub(super) struct LocksOfPage(HashMap<LockId, Option<Arc<Lock>>>);

impl LocksOfPage {
    /// Whether this lock would have to be loaded, and the page has loaded as many as it may.
    pub(super) fn is_full(&self, id: LockId) -> bool {
        self.0.len() >= MAX_LOCKS && !self.0.contains_key(&id)
    }

    /// The lock, if it exists and is shown. A lock that the store has as corrupt is not, because nobody's access to it can be decided.
    pub(super) async fn get(
        &mut self,
        writes: &KeyWrites,
        id: LockId,
        is_shown: impl Fn(&Lock) -> bool,
    ) -> Result<Option<Arc<Lock>>, RepoError> {
        if let Some(known) = self.0.get(&id) {
            return Ok(known.clone());
        }
        let loaded = match writes.ports.locks.load(id).await {
            Err(RepoError::Corrupt { .. }) => None,
            loaded => loaded?,
        };
        let lock = loaded.map(|snapshot| snapshot.lock);
        let lock = lock.filter(is_shown).map(Arc::new);
        self.0.insert(id, lock.clone());
        Ok(lock)
    }
}
