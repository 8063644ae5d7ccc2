//! A wall clock of a process that is not the system's, by libfaketime. Its monotonic clock stays true.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// By how many seconds the wall clock of processes is ahead; they follow when it is set.
pub struct FakeClock {
    folder: TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that is so far ahead of the system's; behind where negative.
    ///
    /// # Panics
    /// libfaketime is not installed.
    pub fn ahead_by(seconds: i64) -> Self {
        let folder = TempDir::new().expect("a folder");
        // A database runs as another user.
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), all).expect("it is ours");
        let library = library().expect("libfaketime is installed: scripts/test does that");
        let clock = Self { folder, library };
        clock.set(seconds);
        clock
    }

    /// From now on the clock is so far ahead of the system's.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) {
        let (path, new) = (self.path(), self.folder.path().join("new"));
        fs::write(&new, format!("{seconds:+}\n")).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("it is ours");
        // At once, so that nobody reads half of it.
        fs::rename(&new, &path).expect("put in its place");
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// What makes a process follow this clock.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.path())),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// Where Debian puts the library for programs with several threads.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}
