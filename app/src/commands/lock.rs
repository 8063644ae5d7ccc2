//! `keywright lock`.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use keywright_adapters::json;
use keywright_domain::model::{
    Lock, LockEvent, LockId, LockUuid, LockVersion, NewLock, OrganizationId, RecordedEvent,
    SerialNumber, ThingName, UserId,
};
use keywright_domain::ports::ImportError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{block_on, print, say};
use crate::bootstrap::{Error, NEXT_VERSION, now, open_known_store, open_store};
use crate::cli::StoreLocation;

/// What to do with locks.
#[derive(Args)]
pub(crate) struct LockCommand {
    #[command(subcommand)]
    task: LockTask,
}

#[derive(Subcommand)]
enum LockTask {
    /// Adds one lock.
    Add(Add),
    /// Lists locks, by their ids.
    List {
        #[command(flatten)]
        place: StoreLocation,
        /// Only those after this one.
        #[arg(long, value_name = "ID")]
        after: Option<LockId>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value = "100")]
        limit: usize,
    },
    /// Shows a lock with its open writes.
    Show {
        /// The lock's number.
        id: LockId,
        #[command(flatten)]
        place: StoreLocation,
    },
    /// Takes in events of locks, one JSON object a line; docs/deploying.md shows some. One of the events that
    /// `GET /locks/{id}/events` answers with will do as well. All of them or, if a line is bad, none.
    Import {
        /// The file; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        place: StoreLocation,
    },
}

#[derive(Args)]
struct Add {
    /// The lock's number.
    id: LockId,
    /// The AWS IoT thing whose shadow reaches it; without one, nothing can be written to it yet.
    #[arg(long, value_name = "NAME")]
    thing: Option<ThingName>,
    /// The user who owns it.
    #[arg(long, value_name = "USER")]
    owner: Option<UserId>,
    /// The organization that it belongs to.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// How many key slots it has.
    #[arg(long, value_name = "N")]
    capacity: Option<u64>,
    /// What is printed on it.
    #[arg(long, value_name = "TEXT")]
    serial: Option<SerialNumber>,
    /// Its UUID.
    #[arg(long, value_name = "UUID")]
    uuid: LockUuid,
    #[command(flatten)]
    place: StoreLocation,
}

pub(crate) fn run(command: LockCommand) -> Result<(), Error> {
    match command.task {
        LockTask::Add(lock) => block_on(add(lock)),
        LockTask::List {
            place,
            after,
            limit,
        } => block_on(list(place, after, limit)),
        LockTask::Show { id, place } => block_on(show(place, id)),
        LockTask::Import { file, place } => block_on(import(place, file)),
    }
}

async fn add(add: Add) -> Result<(), Error> {
    let store = open_store(&add.place).await?;
    let (lock, uuid, time) = (add.id, add.uuid, now());
    let recorded = |version, event| RecordedEvent {
        lock,
        uuid: uuid.clone(),
        version: LockVersion(version),
        time,
        write: None,
        event,
    };
    let new = NewLock {
        serial_number: add.serial,
        owner: add.owner,
        thing: add.thing,
        key_capacity: add.capacity,
        ..NewLock::default()
    };
    let mut events = vec![recorded(1, LockEvent::LockCreated(Box::new(new)))];
    if let Some(organization) = add.organization {
        events.push(recorded(2, LockEvent::OrganizationSet { organization }));
    }
    if store.load(lock).await?.is_some() {
        return Err(
            format!("lock {lock} exists already; `keywright lock show {lock}` shows it").into(),
        );
    }
    store.history().import(events).await?;
    print(add.place.json, &json!({ "added": lock.get() }), || {
        format!("lock {lock} is there")
    });
    Ok(())
}

async fn list(place: StoreLocation, after: Option<LockId>, limit: usize) -> Result<(), Error> {
    let store = open_known_store(&place).await?;
    let locks = store.history().locks(after, limit).await?;
    if place.json {
        locks.iter().for_each(|lock| say!("{}", summary(lock)));
        return Ok(());
    }
    say!(
        "{:>16}  {:24}  {:24}  {:24}  VERSION",
        "LOCK",
        "THING",
        "OWNER",
        "ORGANIZATION"
    );
    for lock in &locks {
        let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
        say!(
            "{:>16}  {:24}  {:24}  {:24}  {}",
            lock.id,
            text(lock.thing.as_ref().map(ThingName::as_str)),
            text(lock.owner.as_ref().map(UserId::as_str)),
            text(lock.organization.as_ref().map(OrganizationId::as_str)),
            lock.version
        );
    }
    if let (true, Some(last)) = (locks.len() == limit, locks.last()) {
        eprintln!("there may be more: --after {}", last.id);
    }
    Ok(())
}

fn summary(lock: &Lock) -> Value {
    let mut value = json!(json::LockState(lock));
    value["lockId"] = json!(lock.id.get());
    value["time"] = json!(lock.time.to_string());
    if let Some(members) = value.as_object_mut() {
        members.remove("unsettled");
    }
    value
}

async fn show(place: StoreLocation, id: LockId) -> Result<(), Error> {
    let store = open_known_store(&place).await?;
    let snapshot = store.load(id).await?;
    let snapshot = snapshot.ok_or_else(|| format!("there is no lock {id} in this store"))?;
    let writes = snapshot.unfinished.iter().map(|write| {
        json!({
            "id": write.id.to_string(), "state": write.state.name(),
            "requestedAt": write.prepared_at.to_string(), "expiresAt": write.expires_at.to_string(),
        })
    });
    let mut value = summary(&snapshot.lock);
    value["openWrites"] = writes.collect();
    print(place.json, &value, || {
        serde_json::to_string_pretty(&value).unwrap_or_default()
    });
    Ok(())
}

/// What is wrong with which line.
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

/// How many bad lines are named.
const MOST_BAD_LINES: usize = 20;

/// Everything is read and checked before the store is asked, because others cannot write to it meanwhile.
async fn import(place: StoreLocation, file: PathBuf) -> Result<(), Error> {
    let start = Instant::now();
    let mut input = Input::open(&file)?;
    let (mut good, mut bad) = (0_u64, Vec::new());
    for line in input.lines("checked")? {
        match line {
            Ok(_) => good += 1,
            Err(failure) => bad.push(failure),
        }
        if bad.len() > MOST_BAD_LINES {
            break;
        }
    }
    if let Some(last) = bad.pop() {
        bad.iter()
            .take(MOST_BAD_LINES)
            .for_each(|failure| eprintln!("keywright: {failure}"));
        return Err(last.into());
    }
    let store = open_store(&place).await?;
    let lines = input.lines("imported")?;
    let count = lines.count.clone();
    let outcome = store.import_all(lines).await;
    let count = count.load(Ordering::Relaxed);
    match outcome {
        Ok(()) => {}
        // The store names the lock; the line is the last one that was read.
        Err(ImportFailure::Store(ImportError::NotAStream { lock, why, .. })) => {
            let why = format!("lock {lock}: {why}");
            return Err(ImportFailure::Line { line: count, why }.into());
        }
        Err(failure) => return Err(failure.into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (good as f64 / seconds.max(0.001)).round();
    let value = json!({
        "events": good, "seconds": (seconds * 10.0).round() / 10.0, "perSecond": rate
    });
    print(place.json, &value, || {
        format!("imported in {seconds:.1} s: {good} events, {rate} a second")
    });
    Ok(())
}

/// A file that can be read twice.
struct Input(File);

impl Input {
    /// Standard input is kept in a file that has no name.
    fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
        if path == Path::new("-") {
            let mut kept = tempfile::tempfile().map_err(refuse)?;
            std::io::copy(&mut std::io::stdin().lock(), &mut kept).map_err(refuse)?;
            return Ok(Self(kept));
        }
        Ok(Self(File::open(path).map_err(refuse)?))
    }

    /// All of it, from the start.
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
            count: Arc::default(),
            told: Instant::now(),
            every: Duration::from_secs(seconds),
        })
    }
}

/// The events of a file, with progress every second on a terminal and every ten seconds elsewhere.
struct Lines {
    lines: std::io::Split<BufReader<File>>,
    doing: &'static str,
    count: Arc<AtomicU64>,
    told: Instant,
    every: Duration,
}

/// The longest line that is read.
const LONGEST_LINE: usize = 1024 * 1024;

impl Iterator for Lines {
    type Item = Result<RecordedEvent, ImportFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
            if self.told.elapsed() >= self.every {
                self.told = Instant::now();
                eprintln!("{number} lines {} …", self.doing);
            }
            let bad = |why: String| ImportFailure::Line { line: number, why };
            let line = match line {
                Ok(line) if line.len() > LONGEST_LINE => {
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
