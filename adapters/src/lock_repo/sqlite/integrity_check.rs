//! A background check of a large file.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keywright_sqlite::{FileError, OpenError};
use rusqlite::{ErrorCode, InterruptHandle};
use tokio::sync::watch;
use tracing::{error, warn};

use super::schema::FORMAT;

/// Checks the whole file in a thread of its own while the store is in use. Dropping it ends the check.
pub(super) struct IntegrityCheck {
    corrupt: watch::Receiver<bool>,
    interrupt: InterruptHandle,
    thread: JoinHandle<()>,
}

impl IntegrityCheck {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let conn = FORMAT.open_reader(path)?;
        let (tx, corrupt) = watch::channel(false);
        let (interrupt, path) = (conn.get_interrupt_handle(), path.to_owned());
        let file = path.clone();
        let check = move || {
            let Err(found) = FORMAT.check_integrity(&conn) else {
                return;
            };
            let code = match &found {
                FileError::Sqlite(failed) => failed.sqlite_error_code(),
                _ => None,
            };
            match (&found, code) {
                (_, Some(ErrorCode::OperationInterrupted)) => return,
                (FileError::Corrupt(_), _)
                | (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {}
                _ => {
                    warn!(file = %file.display(), error = %found, "the store of locks could not be checked");
                    return;
                }
            }
            let why = found.to_string();
            error!(file = %file.display(), why, "the store of locks is damaged; restore it from a backup");
            tx.send_replace(true);
        };
        let thread = thread::Builder::new()
            .name("locks-check".into())
            .spawn(check)
            .map_err(|e| FORMAT.open_error(&path, e))?;
        Ok(Self {
            corrupt,
            interrupt,
            thread,
        })
    }

    /// Waits until the check finds that the file is damaged.
    pub(super) async fn corrupt(&self) {
        let mut corrupt = self.corrupt.clone();
        if corrupt.wait_for(|corrupt| *corrupt).await.is_err() {
            // The check has ended without a finding.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for IntegrityCheck {
    fn drop(&mut self) {
        // An interrupt before the check starts has no effect.
        while !self.thread.is_finished() {
            self.interrupt.interrupt();
            thread::sleep(Duration::from_millis(1));
        }
    }
}
