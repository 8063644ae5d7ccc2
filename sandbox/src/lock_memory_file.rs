//! The SQLite file in which virtual locks keep their memories beyond the life of the process.

use std::collections::HashMap;
use std::path::Path;

use keywright_sqlite::{CommitError, FileFormat, GroupCommit, OpenError};
use rusqlite::{Connection, Transaction, params};

use crate::lock_memory::LockMemory;

const FORMAT: FileFormat = FileFormat {
    description: "the memory of virtual locks",
    application_id: 0x4b57_766c, // "KWvl"
    migrations: &["CREATE TABLE virtual_locks (
        thing TEXT PRIMARY KEY,
        memory TEXT NOT NULL
    ) STRICT, WITHOUT ROWID"],
    exclusive: false,
    cache_kib: 128,
};

/// The memory of a virtual lock could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// The file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The memory cannot be written as JSON.
    #[error("the memory of a virtual lock could not be saved: {0}")]
    Json(#[from] serde_json::Error),
    /// SQLite rejected the row.
    #[error("the memory of a virtual lock could not be saved: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The row could not be committed.
    #[error("the memory of a virtual lock could not be saved: {0}")]
    Commit(#[from] CommitError),
}

/// Writes to the file. Clones share the writer.
#[derive(Clone)]
pub(crate) struct MemoryFile(GroupCommit);

impl MemoryFile {
    /// Opens the file and reads all memories, by thing. A missing file is created.
    pub(crate) fn open(path: &Path) -> Result<(Self, HashMap<String, LockMemory>), OpenError> {
        let conn = FORMAT.open(path)?;
        let memories = read_all(&conn).map_err(|e| FORMAT.open_error(path, e))?;
        let writer =
            GroupCommit::start("virtual-locks", conn).map_err(|e| FORMAT.open_error(path, e))?;
        Ok((Self(writer), memories))
    }

    /// Saves the memory of one lock durably.
    pub(crate) async fn save(
        &self,
        thing: &str,
        memory: &LockMemory,
    ) -> Result<(), MemoryFileError> {
        let (thing, json) = (thing.to_owned(), serde_json::to_string(memory)?);
        let job = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO virtual_locks VALUES (?1, ?2)")?
                .execute(params![thing, json])
        };
        self.0.run(job).await??;
        Ok(())
    }
}

/// Reads the memories of all virtual locks, by thing. A sandbox may be running with the same file.
///
/// # Errors
/// The file cannot be read.
pub fn read_memories(path: &Path) -> Result<HashMap<String, LockMemory>, MemoryFileError> {
    let conn = FORMAT.open_reader(path)?;
    Ok(read_all(&conn).map_err(|e| FORMAT.open_error(path, e))?)
}

/// Reads the memory of one virtual lock; empty for a lock that never wrote a key.
///
/// # Errors
/// The file cannot be read.
pub fn read_memory(path: &Path, thing: &str) -> Result<LockMemory, MemoryFileError> {
    Ok(read_memories(path)?.remove(thing).unwrap_or_default())
}

fn read_all(conn: &Connection) -> rusqlite::Result<HashMap<String, LockMemory>> {
    conn.prepare("SELECT thing, memory FROM virtual_locks")?
        .query_map([], |row| {
            let json: String = row.get(1)?;
            let memory = serde_json::from_str(&json).map_err(|e| {
                let text = rusqlite::types::Type::Text;
                rusqlite::Error::FromSqlConversionFailure(1, text, e.into())
            })?;
            Ok((row.get(0)?, memory))
        })?
        .collect()
}
