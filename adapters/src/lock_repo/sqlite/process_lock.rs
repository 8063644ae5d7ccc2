use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Says to other processes that this one has the store open, until it is dropped or the process ends, however that happens.
pub(super) struct ProcessLock {
    _lock: Option<File>,
}

/// What follows the name of the store's file.
const SUFFIX: &str = "-owners";

impl ProcessLock {
    /// `if_alone` runs while it is certain that no other process has the store open, so that whoever owns an intent in it is
    /// dead. Where that is not certain, it does not run. Nothing may be saved before this.
    pub(super) fn enter<T>(store: &Path, if_alone: impl FnOnce() -> T) -> (Self, Option<T>) {
        let mut name = store.as_os_str().to_owned();
        name.push(SUFFIX);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(Path::new(&name));
        // Without the file, or where the file system has no locks, nobody can tell who is alive.
        let Ok(file) = file else {
            return (Self { _lock: None }, None);
        };
        let alone = file.try_lock().is_ok();
        let found = alone.then(if_alone);
        // Between the two, another process may find itself alone as well, and is right: this one has saved nothing yet.
        let shared = (!alone || file.unlock().is_ok()) && file.lock_shared().is_ok();
        let lock = shared.then_some(file);
        (Self { _lock: lock }, found)
    }
}
