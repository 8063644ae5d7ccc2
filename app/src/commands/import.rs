//! `keywright lock import`: all events of a file, or none.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use keywright_adapters::json;
use keywright_adapters::lock_repo::NEXT_VERSION;
use keywright_domain::model::{LockVersion, RecordedEvent};
use keywright_domain::ports::ImportError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::output::print_result;
use crate::bootstrap::open_stores::Stores;
use crate::settings::store_location::StoreLocation;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
enum ImportFailure {
    #[error("line {line}: {why}; nothing was imported")]
    Line { line: u64, why: String },
    #[error("{0}; nothing was imported")]
    Store(ImportError),
}

impl From<ImportError> for ImportFailure {
    fn from(error: ImportError) -> Self {
        Self::Store(error)
    }
}

/// How many invalid lines are printed.
const MAX_BAD_LINES: usize = 20;

/// The longest line that is accepted, in bytes.
const MAX_LINE_LENGTH: usize = 1024 * 1024;

/// Imports the events in a file. All lines are read and checked before the store is used, because other processes cannot write to
/// the store during the import.
///
/// # Errors
/// The file cannot be read, a line is invalid, or the store fails. Then nothing is imported.
pub(super) async fn import(location: StoreLocation, file: PathBuf) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut input = Input::open(&file)?;
    let (mut count, mut bad) = (0_u64, Vec::new());
    for line in input.lines("checked")? {
        match line {
            Ok(_) => count += 1,
            Err(failure) => bad.push(failure),
        }
        if bad.len() > MAX_BAD_LINES {
            break;
        }
    }
    if let Some(last) = bad.pop() {
        bad.iter()
            .take(MAX_BAD_LINES)
            .for_each(|failure| eprintln!("keywright: {failure}"));
        return Err(last.into());
    }
    let stores = Stores::open_now(&location.store()?, &location.data()?).await?;
    let lines = input.lines("imported")?;
    let lines_read = lines.lines_read.clone();
    stores
        .locks
        .import_all(lines)
        .await
        .map_err(|failure| match failure {
            // The store names the lock. The line is the last one that was read.
            ImportFailure::Store(ImportError::NotAStream { lock, why, .. }) => {
                ImportFailure::Line {
                    line: lines_read.load(Ordering::Relaxed),
                    why: format!("lock {lock}: {why}"),
                }
            }
            failure => failure,
        })?;
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "the rate is rounded anyway")]
    let rate = (count as f64 / seconds.max(0.001)).round();
    let value = json!({
        "events": count, "seconds": (seconds * 10.0).round() / 10.0, "perSecond": rate
    });
    print_result(location.json, &value, || {
        format!("imported in {seconds:.1} s: {count} events, {rate} a second")
    });
    Ok(())
}

/// A file that can be read twice.
struct Input(File);

impl Input {
    /// Standard input is copied to a temporary file.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            if path != Path::new("-") {
                return File::open(path);
            }
            let mut copy = tempfile::tempfile()?;
            std::io::copy(&mut std::io::stdin().lock(), &mut copy)?;
            Ok(copy)
        };
        let file = open().with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(file))
    }

    /// All lines from the start. `doing` names the work in the progress lines.
    fn lines(&mut self, doing: &'static str) -> std::io::Result<Lines> {
        self.0.rewind()?;
        let reader = BufReader::with_capacity(1 << 20, self.0.try_clone()?);
        let seconds = if std::io::stderr().is_terminal() {
            1
        } else {
            10
        };
        Ok(Lines {
            lines: reader.split(b'\n'),
            doing,
            lines_read: Arc::default(),
            reported_at: Instant::now(),
            report_every: Duration::from_secs(seconds),
        })
    }
}

/// The events of a file. Progress is printed on standard error: every second on a terminal, else every ten seconds.
struct Lines {
    lines: std::io::Split<BufReader<File>>,
    doing: &'static str,
    lines_read: Arc<AtomicU64>,
    reported_at: Instant,
    report_every: Duration,
}

impl Iterator for Lines {
    type Item = Result<RecordedEvent, ImportFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            let number = self.lines_read.fetch_add(1, Ordering::Relaxed) + 1;
            if self.reported_at.elapsed() >= self.report_every {
                self.reported_at = Instant::now();
                eprintln!("{number} lines {} …", self.doing);
            }
            let bad = |why: String| ImportFailure::Line { line: number, why };
            let line = match line {
                Ok(line) if line.len() > MAX_LINE_LENGTH => {
                    return Some(Err(bad("it is longer than 1 MiB".into())));
                }
                Ok(line) => line,
                Err(e) => return Some(Err(bad(e.to_string()))),
            };
            if !line.trim_ascii().is_empty() {
                return Some(event(&line).map_err(bad));
            }
        }
    }
}

fn event(line: &[u8]) -> Result<RecordedEvent, String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
    let version = match value.get("version") {
        None => NEXT_VERSION,
        Some(version) => {
            let version = version.as_u64().filter(|v| *v > 0);
            LockVersion(version.ok_or("`version` must be an integer of at least 1")?)
        }
    };
    let inner = value.get("event").unwrap_or(&value);
    let name = inner.get("type").and_then(Value::as_str);
    let name = name.ok_or("`type` must name an event, such as LockCreated")?;
    if name.starts_with("KeyWrite") {
        return Err(format!(
            "{name} is recorded by Keywright itself and cannot be imported"
        ));
    }
    let data = inner.get("data").ok_or("`data` is missing")?;
    json::read_event(name, version, None, data).map_err(|e| format!("{name}: {e}"))
}
