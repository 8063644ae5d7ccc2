//! The lock on the data folder: one server for each folder. Two would not see each other's decisions.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

/// The file that a server locks. It contains the process id of the server.
const LOCK: &str = "server.lock";

/// Locks a data folder until the returned file is dropped or the process ends in any way. Commands do not take the lock.
///
/// # Errors
/// Another server has the lock, or the file cannot be created; the text names the folder or the file.
pub(super) fn lock_folder(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK);
    let unusable = || format!("cannot lock {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another process ({}) serves the folder {}; stop that one, or choose another folder with --data",
                holder.trim(),
                data.display()
            );
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(unusable),
    }
    // The process id is for the message above. The lock works without it.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
