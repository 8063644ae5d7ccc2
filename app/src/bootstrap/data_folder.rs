//! Creates and checks the data folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;

use crate::error::UnusableSettings;

/// Creates the folder and its missing parents, readable only by their owner, because its files name keys and people and
/// contain secrets. The mode of an existing folder is not changed.
///
/// # Errors
/// It cannot be created; the text names it.
pub(crate) fn create(data: &Path) -> anyhow::Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(data);
    created.with_context(|| format!("cannot make the folder {}", data.display()))
}

/// Checks that files can be created in the folder, or, if it is missing, that the folder can be created. Nothing is left behind.
///
/// # Errors
/// A file or the folder cannot be created; the text names the folder.
pub(super) fn check(data: &Path) -> Result<(), UnusableSettings> {
    let existing = data.ancestors().find(|folder| folder.exists());
    let existing = existing.unwrap_or_else(|| Path::new("."));
    // The file is removed when it is dropped.
    let created = tempfile::tempfile_in(existing).map_err(|e| {
        let (data, existing) = (data.display(), existing.display());
        UnusableSettings::new(format!("cannot keep data in {data}: {existing}: {e}"))
    });
    created.map(drop)
}
