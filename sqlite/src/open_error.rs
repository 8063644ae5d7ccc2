use std::path::PathBuf;

use rusqlite::ErrorCode;

/// A file cannot be used as a store.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as {description}: {error}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What the file was opened as: [`FileFormat::description`](crate::FileFormat::description).
    pub description: &'static str,
    /// What is wrong with it.
    pub error: FileError,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// SQLite's integrity check found damage; its first finding.
    #[error("it is corrupt: {0}")]
    Corrupt(String),
    /// The file has another application id.
    #[error("it belongs to another program")]
    OtherProgram,
    /// The file was made by a newer version of this program, or its version was changed.
    #[error("its schema is version {found}, and this program knows 1 to {newest}")]
    UnknownSchema {
        /// The file's schema version.
        found: i32,
        /// The newest version that the format knows.
        newest: usize,
    },
    /// Another process holds a lock on the file.
    #[error("another process is using it; stop that one, or choose another folder")]
    InUse,
    /// The file can be opened, and what it holds cannot be read.
    #[error("{0}")]
    Contents(String),
    /// The file or a thread for it could not be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Any other failure of SQLite.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for FileError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Sqlite(error),
        }
    }
}
