//! Standard error of a process in a temporary file.

use std::fs::File;

use tempfile::NamedTempFile;

/// Limits the heaps of glibc in a child process. By default each thread may get one, and they fill up at different speeds, so
/// that resident memory would not show what the program needs.
pub(crate) const MALLOC_ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// The log of a process. A file, so that a line that was logged before an answer can be read once the answer has arrived.
pub(crate) struct ProcessLog(NamedTempFile);

impl ProcessLog {
    pub(crate) fn new() -> Self {
        Self(NamedTempFile::new().expect("a temporary file"))
    }

    /// A handle for the process.
    pub(crate) fn file(&self) -> File {
        self.0.reopen().expect("the file")
    }

    /// The log so far.
    pub(crate) fn text(&self) -> String {
        let bytes = std::fs::read(self.0.path()).expect("the log is read");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
