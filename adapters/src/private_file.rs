//! Files that only their owner can read.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file atomically and durably. The new file can be read by its owner only.
///
/// # Errors
/// It cannot be written; the old file is then unchanged.
#[cfg(feature = "auth")]
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut fresh = NamedTempFile::new_in(folder)?;
    fresh.write_all(content)?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    sync_folder(folder)
}

/// Makes the names of files in a folder durable: a power cut could otherwise undo that a file was renamed.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file that does not exist yet, and returns whether it did not. The file can be read by its owner only.
///
/// # Errors
/// It cannot be written.
#[cfg(feature = "webhooks")]
pub(crate) fn create_private(path: &Path, content: &[u8]) -> std::io::Result<bool> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut fresh = NamedTempFile::new_in(folder)?;
    fresh.write_all(content)?;
    fresh.as_file().sync_all()?;
    match fresh.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}
