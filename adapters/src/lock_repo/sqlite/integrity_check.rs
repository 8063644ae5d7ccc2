use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keywright_sqlite::{FileError, OpenError};
use rusqlite::{ErrorCode, InterruptHandle};
use tokio::sync::watch;
use tracing::{error, warn};

use super::schema::FORMAT;

/// Reads a large file as a whole to see whether it is sound, beside all else that is done with it. Ends when it is
/// dropped.
pub(super) struct IntegrityCheck {
    corrupt: watch::Receiver<bool>,
    interrupt: InterruptHandle,
    thread: Option<JoinHandle<()>>,
}

impl IntegrityCheck {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let conn = FORMAT.open_reader(path)?;
        let (tell, corrupt) = watch::channel(false);
        let (interrupt, path) = (conn.get_interrupt_handle(), path.to_owned());
        let at = path.clone();
        let checking = move || {
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
                    warn!(file = %at.display(), error = %found, "the store of locks could not be checked");
                    return;
                }
            }
            let why = found.to_string();
            error!(file = %at.display(), why, "the store of locks is damaged; restore it from a backup");
            tell.send_replace(true);
        };
        let thread = thread::Builder::new()
            .name("locks-check".into())
            .spawn(checking)
            .map_err(|e| FORMAT.open_error(&path, e))?;
        Ok(Self {
            corrupt,
            interrupt,
            thread: Some(thread),
        })
    }

    /// Waits until the file is found to be damaged.
    pub(super) async fn corrupt(&self) {
        if self
            .corrupt
            .clone()
            .wait_for(|corrupt| *corrupt)
            .await
            .is_err()
        {
            // It is sound, as far as is known.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for IntegrityCheck {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // What has not begun yet is not interrupted.
        while !thread.is_finished() {
            self.interrupt.interrupt();
            thread::sleep(Duration::from_millis(1));
        }
        // Its panic was printed where it happened.
        let _ = thread.join();
    }
}
