//! Detects whether other processes have the store open.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A shared lock on a file beside the store, held until it is dropped or the process ends in any way.
pub(super) struct ProcessLock {
    _lock: Option<File>,
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
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(Path::new(&name));
        // Without the file, or on a file system without locks, other processes cannot be detected.
        let Ok(file) = file else {
            return (Self { _lock: None }, None);
        };
        let is_alone = file.try_lock().is_ok();
        let found = is_alone.then(if_alone);
        // Between these two locks another process may also be alone. That is correct: this one has saved nothing yet.
        let shared = (!is_alone || file.unlock().is_ok()) && file.lock_shared().is_ok();
        let lock = shared.then_some(file);
        (Self { _lock: lock }, found)
    }
}
