//! Files that only their owner can read.

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file atomically. The new file can be read by its owner only.
///
/// # Errors
/// It cannot be written; the old file is then unchanged.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut fresh = NamedTempFile::new_in(folder)?;
    fresh.write_all(content)?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    Ok(())
}
