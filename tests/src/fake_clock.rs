//! A shifted wall clock for child processes (libfaketime). Their monotonic clocks are not changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The offset of the wall clock of child processes. Running processes follow a change.
pub struct FakeClock {
    folder: TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that is ahead of the system's by this number of seconds, or behind it if the number is negative.
    ///
    /// # Panics
    /// libfaketime is not installed.
    pub fn ahead_by(seconds: i64) -> Self {
        let folder = TempDir::new().expect("a folder");
        // PostgreSQL runs as another user.
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), all).expect("the file belongs to this user");
        let library = library().expect("scripts/test installs libfaketime");
        let clock = Self { folder, library };
        clock.set(seconds);
        clock
    }

    /// Sets the offset in seconds.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) {
        let (path, new) = (self.path(), self.folder.path().join("new"));
        fs::write(&new, format!("{seconds:+}\n")).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))
            .expect("the file belongs to this user");
        // A rename is atomic, so that no process reads a part of the file.
        fs::rename(&new, &path).expect("renamed");
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// The environment variables that make a process use this clock.
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

/// The path of the library for multi-threaded programs on Debian.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}
