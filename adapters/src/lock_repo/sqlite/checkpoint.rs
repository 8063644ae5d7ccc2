use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

/// From this length of the write-ahead log on, in bytes, the writer itself writes it back.
pub(super) const MAX_WAL_BYTES: i64 = 64 * 1024 * 1024;

/// How often the log is written back: the longer, the fewer pages in all, and the longer commits wait for those that are
/// written at once.
const PERIOD: Duration = Duration::from_millis(100);

/// How long the file of the log may stay after a burst, in bytes.
const IDLE_WAL: u64 = 4 * 1024 * 1024;

/// How many free pages the file keeps for what comes next, and how many are given back to the system at once: so few that a
/// commit hardly waits.
const KEPT_FREE_PAGES: u32 = 4096;
const PAGES_AT_ONCE: u32 = 256;

/// Writes the log back into the file from a connection of its own, because a commit that has to do it
/// takes many times as long. Ends when it is dropped.
pub(super) struct Checkpoints {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let conn = Connection::open(path).map_err(std::io::Error::other)?;
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let wal = PathBuf::from(name);
        let (end, ended) = channel::<()>();
        let thread = thread::Builder::new()
            .name("locks-checkpoint".into())
            .spawn(move || {
                // What finds the file busy is made up for by the next round.
                let _ = conn.busy_timeout(Duration::ZERO);
                while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if is_written_back(&conn).unwrap_or(false) {
                        let _ = tidy(&conn, &wal);
                    }
                }
            })?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

/// Writes the log back as far as no reader needs it; whether that is all of it.
fn is_written_back(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, in_log, written): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && in_log == written)
    })
}

/// Gives space back to the system, while nobody writes: a log that has grown, and free pages of the file.
fn tidy(conn: &Connection, wal: &Path) -> rusqlite::Result<()> {
    if wal.metadata().is_ok_and(|file| file.len() > IDLE_WAL) {
        return conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    // A file that was made without it keeps its free pages for what comes next.
    let is_incremental = number("auto_vacuum")? == 2;
    if is_incremental && number("freelist_count")? > KEPT_FREE_PAGES {
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
        let mut pages = vacuum.query([])?;
        // Each row is a page that was given back.
        while pages.next()?.is_some() {}
    }
    Ok(())
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            let _ = thread.join();
        }
    }
}
