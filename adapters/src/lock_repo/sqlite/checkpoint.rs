//! Work in the background: ticks of the writer, and checkpoints of the write-ahead log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use keywright_sqlite::{JoinOnDrop, WeakGroupCommit};
use rusqlite::Connection;

use super::log_writer::{LogWriter, SharedMemory, lock_memory};

/// The size of the write-ahead log, in bytes, at which the writer itself makes a checkpoint.
pub(super) const MAX_WAL_BYTES: i64 = 64 * 1024 * 1024;

/// The time between two checkpoints. With longer ones, fewer pages are written in total, and commits wait longer for each
/// checkpoint.
const PERIOD: Duration = Duration::from_millis(100);

/// The size of the write-ahead log, in bytes, above which it is truncated while nothing is written.
const MAX_IDLE_WAL_BYTES: u64 = 4 * 1024 * 1024;

/// The number of free pages that the file keeps for later use.
const KEPT_FREE_PAGES: u32 = 4096;

/// The number of free pages that are returned to the file system at a time: few, so that commits hardly wait.
const VACUUM_PAGES: u32 = 256;

/// Lets the writer apply old changes, and makes checkpoints from a connection of its own, because a commit that makes one takes many times as long. Dropping it ends the
/// thread.
pub(super) struct Checkpoints {
    _end: Sender<()>,
    _thread: JoinOnDrop,
}

impl Checkpoints {
    pub(super) fn start(
        path: &Path,
        memory: SharedMemory,
        writer: WeakGroupCommit<LogWriter>,
    ) -> std::io::Result<Self> {
        let conn = Connection::open(path).map_err(std::io::Error::other)?;
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let wal = PathBuf::from(name);
        let mut thread = JoinOnDrop::default();
        let (end, ended) = channel::<()>();
        // Shared with the job while one is queued.
        let ticks = Arc::new(());
        thread.spawn("locks-checkpoint", move || {
            // If the file is busy, the next round makes up for it.
            let _ = conn.busy_timeout(Duration::ZERO);
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let has_changes = !lock_memory(&memory).tail.is_empty();
                if has_changes && Arc::strong_count(&ticks) == 1 {
                    let queued = ticks.clone();
                    writer.try_run(move |transaction, writer| {
                        // Dropped with the job, also if it cannot run.
                        drop(queued);
                        writer.tick(transaction)
                    });
                }
                if checkpoint(&conn).unwrap_or(false) {
                    let _ = free_space(&conn, &wal);
                }
            }
        })?;
        Ok(Self {
            _end: end,
            _thread: thread,
        })
    }
}

/// Makes a checkpoint of the part of the log that no reader needs, and returns whether that was all of it.
fn checkpoint(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, in_log, written): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && in_log == written)
    })
}

/// Returns space to the file system while nothing is written: that of a large log, and free pages of the file.
fn free_space(conn: &Connection, wal: &Path) -> rusqlite::Result<()> {
    if wal
        .metadata()
        .is_ok_and(|file| file.len() > MAX_IDLE_WAL_BYTES)
    {
        return conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    // Files of earlier versions have no incremental vacuum and keep their free pages.
    let is_incremental = number("auto_vacuum")? == 2;
    if is_incremental && number("freelist_count")? > KEPT_FREE_PAGES {
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut pages = vacuum.query([])?;
        // Each row is a page that was returned.
        while pages.next()?.is_some() {}
    }
    Ok(())
}
