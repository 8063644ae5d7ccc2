//! Detects whether other processes have the store open, and whether they have written to it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A shared lock on a file beside the store, held until it is dropped or the process ends in any way. The file has a byte for each
/// time that the writing process has changed, so that reading its length shows whether another process has written.
pub(super) struct ProcessLock(File);

/// The suffix of the lock file after the name of the store's file.
const SUFFIX: &str = "-owners";

impl ProcessLock {
    /// Takes the lock. `if_alone` runs if no other process has the store open, so that the workers of all intents in it have
    /// ended. It must be called before anything is saved. On a file system without locks, other processes cannot be excluded.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn acquire<T>(
        store: &Path,
        if_alone: impl FnOnce() -> T,
    ) -> std::io::Result<(Self, Option<T>)> {
        let mut name = store.as_os_str().to_owned();
        name.push(SUFFIX);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(Path::new(&name))?;
        let is_alone = file.try_lock().is_ok();
        if is_alone {
            // If this fails, the file keeps its bytes.
            let _ = file.set_len(0);
        }
        let found = is_alone.then(if_alone);
        // Between these two locks another process may also be alone. That is correct: this one has saved nothing yet.
        let _ = is_alone.then(|| file.unlock());
        let _ = file.lock_shared();
        Ok((Self(file), found))
    }

    /// How many times the writing process has changed. `None`: this cannot be detected, because the file was deleted.
    pub(super) fn takeovers(&self) -> Option<u64> {
        let metadata = self.0.metadata().ok()?;
        (metadata.nlink() > 0).then_some(metadata.len())
    }

    /// Counts that this process has become the one that writes, and returns the new count. It must be called in the first transaction of
    /// this process after those of another, before the commit, so that no process reads what it knows after the commit. If the
    /// transaction is rolled back, the others only read once more.
    pub(super) fn announce_takeover(&self) -> std::io::Result<Option<u64>> {
        (&self.0).write_all(b".")?;
        Ok(self.takeovers())
    }
}
