//! One server a folder of data: two would each decide by what the other one does not know.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;

/// The file that a server locks, with its process id in it.
const LOCK: &str = "server.lock";

/// Keeps other servers off a folder until it is dropped or the process ends, however that happens. Commands do not ask for it.
pub(super) struct FolderLock(#[expect(dead_code, reason = "its drop unlocks it")] File);

impl FolderLock {
    /// # Errors
    /// Another server has the folder, or the file cannot be made; the text names both.
    pub(super) fn take(data: &Path) -> Result<Self, Error> {
        let path = data.join(LOCK);
        let unusable =
            |why: &dyn std::fmt::Display| format!("cannot lock {}: {why}", path.display());
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| unusable(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(format!(
                    "another process ({}) serves the folder {}; stop that one, or choose another folder with --data",
                    holder.trim(),
                    data.display()
                )
                .into());
            }
            Err(TryLockError::Error(e)) => return Err(unusable(&e).into()),
        }
        // The id is for the person who reads the message above; the lock works without it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}
