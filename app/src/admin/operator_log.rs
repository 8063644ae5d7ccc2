//! What operators have done, in a file to which lines are only added.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::mutex::lock_mutex;

/// How many bytes at the end of the file are read: several hundred entries.
const READ_BYTES: u64 = 128 * 1024;

/// The file, which belongs to one server. Clones share it.
#[derive(Clone)]
pub(crate) struct OperatorLog {
    path: Arc<PathBuf>,
    /// Held while a line is added.
    adding: Arc<Mutex<()>>,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperatorAction {
    /// When it was recorded.
    pub(crate) at: String,
    pub(crate) operator: String,
    /// What was done, such as `withdraw`.
    pub(crate) action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) write: Option<String>,
    /// `done`, or why not.
    pub(crate) outcome: String,
}

impl OperatorLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            adding: Arc::default(),
        }
    }

    /// Adds an entry, and returns when it is durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) async fn add(&self, action: OperatorAction) -> io::Result<()> {
        let log = self.clone();
        let add = move || {
            let _adding = lock_mutex(&log.adding);
            let mut line = serde_json::to_string(&action)?;
            line.push('\n');
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).mode(0o600);
            let mut file = file.open(&*log.path)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        spawn_blocking(add)
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// The newest entries, the newest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn newest(&self) -> io::Result<Vec<OperatorAction>> {
        let path = self.path.clone();
        let read = spawn_blocking(move || read_newest(&path)).await;
        read.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

fn read_newest(path: &Path) -> io::Result<Vec<OperatorAction>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let start = file.metadata()?.len().saturating_sub(READ_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let lines = BufReader::new(file).split(b'\n');
    // The first line may have begun before `start`, and the last one may have been cut off by a crash.
    let actions = lines.filter_map(|line| match line {
        Ok(line) => serde_json::from_slice(&line).ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    let mut actions = actions.collect::<io::Result<Vec<_>>>()?;
    actions.reverse();
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn action(number: usize) -> OperatorAction {
        OperatorAction {
            at: "2026-12-01T08:00:00.000Z".into(),
            operator: "ann".into(),
            action: "withdraw".into(),
            lock: Some(123),
            write: Some(format!("write-{number}")),
            outcome: "done".into(),
        }
    }

    #[tokio::test]
    async fn the_newest_actions_come_first_and_torn_lines_are_left_out() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("log");
        let log = OperatorLog::new(path.clone());
        assert_eq!(log.newest().await.expect("no file yet"), []);
        for number in 0..1500 {
            log.add(action(number)).await.expect("added");
        }
        let newest = log.newest().await.expect("read");
        assert!((500..1500).contains(&newest.len()), "{}", newest.len());
        assert_eq!(newest[..2], [action(1499), action(1498)]);
        let mut text = std::fs::read(&path).expect("read");
        text.truncate(text.len() - 10);
        std::fs::write(&path, text).expect("written");
        assert_eq!(log.newest().await.expect("read")[0], action(1498));
    }
}
