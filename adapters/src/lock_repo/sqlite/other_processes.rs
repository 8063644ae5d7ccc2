//! Detects whether other processes have the store open, and whether they have written to it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A shared lock on a file beside the store, held until it is dropped or the process ends in any way. The file has a byte for each
/// time that the writing process has changed, so that reading its length shows whether another process has written.
pub(super) struct ProcessLock {
    lock: Option<File>,
}

/// The suffix of the lock file after the name of the store's file.
const SUFFIX: &str = "-owners";

impl ProcessLock {
    /// Takes the lock. `if_alone` runs if no other process has the store open, so that the workers of all intents in it have
    /// ended. It must be called before anything is saved.
    pub(super) fn acquire<T>(store: &Path, if_alone: impl FnOnce() -> T) -> (Self, Option<T>) {
        let mut name = store.as_os_str().to_owned();
        name.push(SUFFIX);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(Path::new(&name));
        // Without the file, or on a file system without locks, other processes cannot be detected.
        let Ok(file) = file else {
            return (Self { lock: None }, None);
        };
        let is_alone = file.try_lock().is_ok();
        if is_alone {
            // If this fails, the file keeps its bytes.
            let _ = file.set_len(0);
        }
        let found = is_alone.then(if_alone);
        // Between these two locks another process may also be alone. That is correct: this one has saved nothing yet.
        let shared = (!is_alone || file.unlock().is_ok()) && file.lock_shared().is_ok();
        let lock = shared.then_some(file);
        (Self { lock }, found)
    }

    /// How many times the writing process has changed. `None`: this cannot be detected.
    pub(super) fn writer_changes(&self) -> Option<u64> {
        let metadata = self.lock.as_ref()?.metadata();
        metadata.ok().map(|metadata| metadata.len())
    }

    /// Counts that this process is the one that writes, and returns the new count. It must be called in the transaction that is the
    /// first one of this process after those of another.
    pub(super) fn announce_writer(&self) -> std::io::Result<Option<u64>> {
        if let Some(mut file) = self.lock.as_ref() {
            file.write_all(b".")?;
        }
        Ok(self.writer_changes())
    }
}
