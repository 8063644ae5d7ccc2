//! `keywright lock import`: all events of a file, or none.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use keywright_adapters::json;
use keywright_adapters::lock_repo::{NEXT_VERSION, apply_imported};
use keywright_domain::model::{LockId, LockVersion, RecordedEvent};
use keywright_domain::ports::{ImportError, RepoError};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::output::print_result;
use crate::bootstrap::lock_store::LockStore;
use crate::bootstrap::open_stores::Stores;
use crate::settings::store_location::StoreLocation;

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
enum ImportFileError {
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error(transparent)]
    Store(#[from] ImportError),
}

impl ImportFileError {
    /// What the error means for the events of the file.
    fn effect(&self) -> &'static str {
        match self {
            Self::Store(ImportError::Store(RepoError::Unknown(_))) => {
                "it is not known whether the events were imported"
            }
            Self::Line { .. } | Self::Store(_) => NOTHING_IMPORTED,
        }
    }
}

const NOTHING_IMPORTED: &str = "nothing was imported";

/// After how many invalid lines the check of a file stops. All of them are printed.
const MAX_INVALID_LINES: usize = 20;

/// The longest line that is accepted, in bytes.
const MAX_LINE_LENGTH: usize = 1024 * 1024;

/// Imports the events in a file. All lines are read and checked before the store is used, because other processes cannot write to
/// the store during the import.
///
/// # Errors
/// The file cannot be read, a line is invalid, or the store fails. Then nothing is imported, except that the outcome of
/// [`RepoError::Unknown`] is unknown.
pub(super) async fn import(location: StoreLocation, file: PathBuf) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut input = Input::open(&file)?;
    let count = check(&mut input)?;
    let stores = Stores::open_now(&location.store()?, &location.data()?).await?;
    let imported = stores.locks.import_all(input.events("imported")?).await;
    if let Err(error) = imported {
        let error = with_line(error, &mut input, &stores.locks).await;
        bail!("{error}; {}", error.effect());
    }
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

/// Counts the events of a file. Prints its invalid lines.
///
/// # Errors
/// The file cannot be read, or a line is invalid.
fn check(input: &mut Input) -> anyhow::Result<u64> {
    let (mut events, mut invalid_lines) = (0, 0);
    for event in input.events("checked")? {
        match event {
            Ok(_) => events += 1,
            Err(error) => {
                eprintln!("keywright: {error}");
                invalid_lines += 1;
            }
        }
        if invalid_lines == MAX_INVALID_LINES {
            bail!("the check stopped after {MAX_INVALID_LINES} invalid lines; {NOTHING_IMPORTED}");
        }
    }
    ensure!(
        invalid_lines == 0,
        "invalid lines: {invalid_lines}; {NOTHING_IMPORTED}"
    );
    Ok(events)
}

/// Adds the line of the event, if a store refused one. The store may have read further events before it refused this one, so the
/// events of the lock are applied again to the lock in the store. If that fails or the lock has changed, the error stays as it is.
async fn with_line(
    error: ImportFileError,
    input: &mut Input,
    locks: &LockStore,
) -> ImportFileError {
    if let ImportFileError::Store(refusal) = &error
        && let ImportError::NotAStream { lock, why, .. } = refusal
        && let Some(line) = refused_line(*lock, refusal, input, locks).await
    {
        let why = format!("lock {lock}: {why}");
        return ImportFileError::Line { line, why };
    }
    error
}

async fn refused_line(
    id: LockId,
    refusal: &ImportError,
    input: &mut Input,
    locks: &LockStore,
) -> Option<u64> {
    let mut lock = locks.repo().load(id).await.ok()?.map(|known| known.lock);
    let mut events = input.events("searched").ok()?;
    while let Some(event) = events.next() {
        let mut event = event.ok()?;
        if event.lock == id {
            match apply_imported(lock, &mut event) {
                Ok(applied) => lock = Some(applied),
                Err(error) => return (error == *refusal).then_some(events.lines_read),
            }
        }
    }
    None
}

/// A file that can be read again.
struct Input(File);

impl Input {
    /// Opens the file. `-` is standard input, which is copied to a temporary file.
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

    /// All events from the start. `doing` names the work in the progress lines.
    fn events(&mut self, doing: &'static str) -> std::io::Result<EventReader> {
        self.0.rewind()?;
        let reader = BufReader::with_capacity(1 << 20, self.0.try_clone()?);
        let seconds = if std::io::stderr().is_terminal() {
            1
        } else {
            10
        };
        Ok(EventReader {
            lines: reader.split(b'\n'),
            doing,
            lines_read: 0,
            reported_at: Instant::now(),
            report_every: Duration::from_secs(seconds),
        })
    }
}

/// The events of a file. Progress is printed on standard error: every second on a terminal, else every ten seconds.
struct EventReader {
    lines: std::io::Split<BufReader<File>>,
    doing: &'static str,
    /// The number of the line that was read last. The first line is 1.
    lines_read: u64,
    reported_at: Instant,
    report_every: Duration,
}

impl Iterator for EventReader {
    type Item = Result<RecordedEvent, ImportFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            self.lines_read += 1;
            let number = self.lines_read;
            if self.reported_at.elapsed() >= self.report_every {
                self.reported_at = Instant::now();
                eprintln!("{number} lines {} …", self.doing);
            }
            let bad = |why: String| ImportFileError::Line { line: number, why };
            let line = match line {
                Ok(line) if line.len() > MAX_LINE_LENGTH => {
                    return Some(Err(bad("it is longer than 1 MiB".into())));
                }
                Ok(line) => line,
                Err(e) => return Some(Err(bad(e.to_string()))),
            };
            if !line.trim_ascii().is_empty() {
                return Some(parse_event(&line).map_err(bad));
            }
        }
    }
}

fn parse_event(line: &[u8]) -> Result<RecordedEvent, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_whether_events_may_have_been_imported() {
        let store = |error| ImportFileError::from(ImportError::Store(error));
        let lost = store(RepoError::Unknown("the connection is lost".into()));
        let effect = "it is not known whether the events were imported";
        assert_eq!(lost.effect(), effect);
        let down = store(RepoError::Unavailable("no connection".into()));
        assert_eq!(down.effect(), NOTHING_IMPORTED);
    }
}
