//! The memories of virtual locks in a file, so that they outlive the process like those of real ones.

use std::collections::HashMap;
use std::path::Path;

use keywright_sqlite::{CommitError, FileFormat, GroupCommit, OpenError};
use rusqlite::{Connection, params};

use crate::device::LockMemory;

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

/// A memory that was not kept or not read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// The file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file did not take it.
    #[error("the memory of a virtual lock was not kept: {0}")]
    NotKept(String),
}

/// The writer of the file.
#[derive(Clone)]
pub(crate) struct MemoryFile(GroupCommit);

impl MemoryFile {
    /// Opens the file, which is made where it is missing, with all that it holds.
    pub(crate) fn open(path: &Path) -> Result<(Self, HashMap<String, LockMemory>), OpenError> {
        let conn = FORMAT.open(path)?;
        let memories = all(&conn).map_err(|e| FORMAT.open_error(path, e))?;
        let writer =
            GroupCommit::start("virtual-locks", conn).map_err(|e| FORMAT.open_error(path, e))?;
        Ok((Self(writer), memories))
    }

    /// Keeps the memory of one lock. It is on the disk when this is answered.
    pub(crate) async fn keep(
        &self,
        thing: &str,
        memory: &LockMemory,
    ) -> Result<(), MemoryFileError> {
        let not_kept = |why: String| MemoryFileError::NotKept(why);
        let text = serde_json::to_string(memory).map_err(|e| not_kept(e.to_string()))?;
        let thing = thing.to_owned();
        let job = move |transaction: &rusqlite::Transaction<'_>| {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO virtual_locks VALUES (?1, ?2)")?
                .execute(params![thing, text])
        };
        let kept = self.0.run(job).await;
        kept.map_err(|e: CommitError| not_kept(e.to_string()))?
            .map(drop)
            .map_err(|e| not_kept(e.to_string()))
    }
}

/// What each virtual lock holds, by its thing, read beside a sandbox that may be running.
///
/// # Errors
/// The file cannot be read.
pub fn read_memories(path: &Path) -> Result<HashMap<String, LockMemory>, MemoryFileError> {
    let conn = FORMAT.open_reader(path)?;
    Ok(all(&conn).map_err(|e| FORMAT.open_error(path, e))?)
}

/// What one of them holds; empty where it never did anything.
///
/// # Errors
/// The file cannot be read.
pub fn read_memory(path: &Path, thing: &str) -> Result<LockMemory, MemoryFileError> {
    Ok(read_memories(path)?.remove(thing).unwrap_or_default())
}

fn all(conn: &Connection) -> rusqlite::Result<HashMap<String, LockMemory>> {
    conn.prepare("SELECT thing, memory FROM virtual_locks")?
        .query_map([], |row| {
            let text: String = row.get(1)?;
            let memory = serde_json::from_str(&text).map_err(|e| {
                let text = rusqlite::types::Type::Text;
                rusqlite::Error::FromSqlConversionFailure(1, text, e.into())
            })?;
            Ok((row.get(0)?, memory))
        })?
        .collect()
}
