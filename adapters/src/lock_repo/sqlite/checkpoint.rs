use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

/// From this length of the write-ahead log on, in bytes, the writer itself writes it back.
pub(super) const LONGEST_WAL: i64 = 64 * 1024 * 1024;

/// How often the log is written back: the longer, the fewer pages in all, and the longer commits wait for those that are
/// written at once.
const PERIOD: Duration = Duration::from_millis(100);

/// Writes the log back into the file from a connection of its own, because a commit that has to do it
/// takes many times as long. Ends when it is dropped.
pub(super) struct Checkpoints {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let conn = Connection::open(path).map_err(std::io::Error::other)?;
        let (end, ended) = channel::<()>();
        let thread = thread::Builder::new()
            .name("locks-checkpoint".into())
            .spawn(move || {
                while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    // One that finds the file busy is made up for by the next.
                    let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                }
            })?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
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
