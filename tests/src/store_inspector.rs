//! Reads the stores of a program from another process, and checks the invariants.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::{PostgresLockRepo, SqliteLockRepo};
use keywright_adapters::postgres::{PostgresPool, PostgresSettings};
use keywright_adapters::shadow::document_json;
use keywright_adapters::time::{SystemClock, TokioTimer};
use keywright_domain::invariants;
use keywright_domain::model::{
    LockId, LockSnapshot, LockVersion, LoggedEvent, Position, RecordedEvent, ShadowSnapshot, Write,
    WriteId,
};
use keywright_domain::ports::{Clock, LockHistory, LockRepo};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::postgres_server::PostgresServer;
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

/// Reads the stores of a running program: its PostgreSQL database directly, or a copy of its SQLite file. The shadows are always a copy.
pub struct StoreInspector {
    source: Source,
    store: Arc<dyn LockRepo>,
    history: Arc<dyn LockHistory>,
    /// The shadows.
    pub shadows: ShadowService,
}

/// Where to read rows that no port returns.
enum Source {
    File(TempDir),
    Postgres(Arc<PostgresServer>, String),
}

/// How many events [`StoreInspector::log`] returns at most.
pub(crate) const MAX_LOG: usize = 10_000;

const LOCKS_FILE: &str = "locks.sqlite";
const SHADOWS_FILE: &str = "shadows.sqlite";

impl StoreInspector {
    /// Opens copies of the SQLite store and of the shadows of the program whose data folder is `data`.
    ///
    /// # Panics
    /// There is no such file, or a copy cannot be written or opened.
    pub async fn open(data: &Path) -> Self {
        Self::open_with_shadows_of(data, data).await
    }

    /// As [`StoreInspector::open`], with the shadows in the data folder of another program.
    ///
    /// # Panics
    /// There is no such file, or a copy cannot be written or opened.
    pub async fn open_with_shadows_of(locks: &Path, shadows: &Path) -> Self {
        let folder = TempDir::new().expect("a folder");
        copy(locks, folder.path(), LOCKS_FILE);
        copy(shadows, folder.path(), SHADOWS_FILE);
        Self::of_folder(folder).await
    }

    /// Opens the stores in a data folder that no program uses. Files that are missing are created.
    ///
    /// # Panics
    /// A file cannot be opened.
    pub async fn of_folder(folder: TempDir) -> Self {
        let store = SqliteLockRepo::open(
            &folder.path().join(LOCKS_FILE),
            Arc::new(TokioTimer::default()),
        );
        let store = Arc::new(store.unwrap_or_else(|e| panic!("the store does not open: {e}")));
        Self {
            store: store.clone(),
            history: store,
            shadows: open_shadows(folder.path()).await,
            source: Source::File(folder),
        }
    }

    /// As [`StoreInspector::open_with_shadows_of`], with the locks in this PostgreSQL database.
    ///
    /// # Panics
    /// The database cannot be reached, there is no file of shadows, or its copy cannot be written or opened.
    pub async fn open_postgres(
        server: &Arc<PostgresServer>,
        database: &str,
        shadows: &Path,
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        copy(shadows, folder.path(), SHADOWS_FILE);
        let mut settings = PostgresSettings::new(database).expect("a URL");
        settings.set_connections(1);
        let connected = PostgresPool::connect(&settings, Duration::from_secs(10)).await;
        let store = Arc::new(PostgresLockRepo::new(
            connected.expect("the database"),
            Arc::new(TokioTimer::default()),
        ));
        let name = database.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            store: store.clone(),
            history: store,
            shadows: open_shadows(folder.path()).await,
            source: Source::Postgres(server.clone(), name),
        }
    }

    /// All rows of the store and the shadows as text, for comparisons.
    ///
    /// # Panics
    /// The store cannot be read.
    pub fn dump(&self) -> String {
        let mut text = format!("{:#?}\n", self.shadows.records());
        for table in ["locks", "events", "writes", "kept_answers"] {
            let select = format!("SELECT * FROM {table} ORDER BY 1, 2");
            let folder = match &self.source {
                Source::File(folder) => folder,
                Source::Postgres(server, name) => {
                    let rows = server.psql(name, &select).expect("rows");
                    writeln!(text, "{table} {rows}").expect("text");
                    continue;
                }
            };
            let conn = Connection::open(folder.path().join(LOCKS_FILE)).expect("the store opens");
            let mut rows = conn.prepare(&select).expect("a table");
            let columns = rows.column_count();
            let rows = rows.query_map([], |row| {
                (0..columns)
                    .map(|c| row.get::<_, Value>(c))
                    .collect::<Result<Vec<_>, _>>()
            });
            for row in rows.expect("rows") {
                writeln!(text, "{table} {:?}", row.expect("a row")).expect("text");
            }
        }
        text
    }

    /// The ids of all writes of all locks.
    ///
    /// # Panics
    /// The store cannot be read.
    pub fn write_ids(&self) -> Vec<WriteId> {
        let folder = match &self.source {
            Source::File(folder) => folder,
            Source::Postgres(server, name) => {
                let ids = server.psql(name, "SELECT id FROM writes").expect("rows");
                let ids = ids.lines().map(|id| id.parse().expect("an id"));
                return ids.collect();
            }
        };
        let conn = Connection::open(folder.path().join(LOCKS_FILE)).expect("the store opens");
        let mut ids = conn.prepare("SELECT id FROM writes").expect("a table");
        let ids = ids
            .query_map([], |row| row.get::<_, [u8; 16]>(0))
            .expect("rows");
        ids.map(|id| WriteId::from_u128(u128::from_be_bytes(id.expect("an id"))))
            .collect()
    }

    /// Reads the write with this id.
    ///
    /// # Panics
    /// There is no such write.
    pub async fn write(&self, id: WriteId) -> Write {
        let found = self.history.write(id).await.expect("the store answers");
        found.expect("the write exists")
    }

    /// Reads this lock with its live writes.
    ///
    /// # Panics
    /// There is no such lock.
    pub async fn lock(&self, lock: u64) -> LockSnapshot {
        let found = self.store.load(id(lock)).await.expect("the store answers");
        found.expect("the lock exists")
    }

    /// All events of a lock.
    ///
    /// # Panics
    /// The store cannot be read.
    pub async fn events(&self, lock: u64) -> Vec<RecordedEvent> {
        let all = self
            .history
            .events(id(lock), LockVersion(1), usize::MAX)
            .await;
        all.expect("the store answers")
    }

    /// The first `MAX_LOG` events in the order of their positions.
    ///
    /// # Panics
    /// The store does not answer.
    pub async fn log(&self) -> Vec<LoggedEvent> {
        let log = self.history.events_after(Position::START, MAX_LOG).await;
        log.expect("the store answers")
    }

    /// The names of the events of a demo lock, without `LockCreated` and `OrganizationSet`.
    pub async fn event_names_after_creation(&self, lock: u64) -> Vec<&'static str> {
        let events = self.events(lock).await;
        events.iter().skip(2).map(|e| e.event.name()).collect()
    }

    /// The shadow of a demo lock; `None` if it has none.
    pub fn shadow(&self, lock: u64) -> Option<ShadowSnapshot> {
        let name = ShadowName::Named("keys".to_owned());
        let document = self.shadows.document(&format!("demo-lock-{lock}"), &name)?;
        document_json::snapshot(&document.stored_body())
    }

    /// Checks the invariants that hold at any time: I1, I2 and I6.
    ///
    /// # Errors
    /// The first violation.
    pub async fn check(&self, locks: &[u64]) -> Result<(), String> {
        let mut writes = Vec::new();
        for write in self.write_ids() {
            writes.push(self.write(write).await);
        }
        for lock in locks {
            let with_lock = |v: invariants::Violation| format!("lock {lock}: {v}");
            let (events, shadow) = (self.events(*lock).await, self.shadow(*lock));
            invariants::i1_stream(&events).map_err(with_lock)?;
            invariants::i6_settled_once(&events).map_err(with_lock)?;
            for write in writes.iter().filter(|w| w.lock == id(*lock)) {
                invariants::i2_aborted(write, &events, shadow.as_ref()).map_err(with_lock)?;
            }
        }
        Ok(())
    }

    /// Checks I1, I2, I4, I5 and I6. Call it when nothing is in progress.
    ///
    /// # Errors
    /// The first violation.
    pub async fn check_when_idle(&self, locks: &[u64]) -> Result<(), String> {
        self.check(locks).await?;
        for lock in locks {
            let with_lock = |v: invariants::Violation| format!("lock {lock}: {v}");
            let (snapshot, shadow) = (self.lock(*lock).await, self.shadow(*lock));
            invariants::i4_all_end(&snapshot, SystemClock.now()).map_err(with_lock)?;
            invariants::i5_shadow(shadow.as_ref(), &snapshot).map_err(with_lock)?;
        }
        Ok(())
    }
}

async fn open_shadows(folder: &Path) -> ShadowService {
    let config = ServiceConfig {
        clock: Arc::new(|| SystemClock.now().as_secs()),
        limits: Limits::default(),
    };
    let shadows = ShadowService::open(&folder.join(SHADOWS_FILE), config).await;
    shadows.unwrap_or_else(|e| panic!("the shadow store does not open: {e}"))
}

/// Copies a SQLite file and its log while a process may write to them. Reads both files until two successive reads are equal:
/// then no write happened in between.
fn copy(from: &Path, to: &Path, file: &str) {
    let read = |name: &str| std::fs::read(from.join(name)).ok();
    let names = [file.to_owned(), format!("{file}-wal")];
    let mut last = names.each_ref().map(|name| read(name));
    loop {
        let current = names.each_ref().map(|name| read(name));
        if current == last {
            break;
        }
        last = current;
    }
    assert!(
        last[0].is_some(),
        "{} is not there",
        from.join(file).display()
    );
    for (name, content) in names.iter().zip(last) {
        if let Some(content) = content {
            std::fs::write(to.join(name), content).expect("copied");
        }
    }
}

fn id(lock: u64) -> LockId {
    LockId::new(lock).expect("a lock id")
}
