use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior};

/// How long a writer waits for another process that writes to a shared file, such as one that imports locks.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long another process may hold the file before it counts as in use.
const BUSY: Duration = Duration::from_secs(2);

/// A shared file of more bytes than this is not read as a whole before it is opened: that would take longer than a
/// tenth of a second.
const CHECKED_AT_ONCE: u64 = 64 * 1024 * 1024;

/// The bytes of a page of a new file. A commit writes each page that it has touched to the log as a whole, and most touch a few
/// hundred bytes of each: with SQLite's own 4096 a write takes a tenth longer, and with 1024 files are larger by three quarters.
const PAGE: u32 = 2048;

/// To how many bytes SQLite cuts the write-ahead log when it begins anew.
const KEPT_WAL: i64 = 4 * 1024 * 1024;

/// SQLite's name for a store without a file.
const IN_MEMORY: &str = ":memory:";

/// The mode of a store's files.
const PRIVATE: u32 = 0o600;

/// A file that cannot be used as a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {} as {what}: {reason}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What it was to be used as.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// What a store's file looks like, and who may use it.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What the file is, for error texts: "a store of shadows".
    pub what: &'static str,
    /// Tells our files from those of other programs (`PRAGMA application_id`).
    pub application_id: i32,
    /// What brings a file from each schema version to the next, from an empty file on. The schema version
    /// is the number of those that were applied (`PRAGMA user_version`).
    pub migrations: &'static [&'static str],
    /// One connection has the file to itself, until it is closed.
    pub exclusive: bool,
    /// How much of the file a connection keeps in memory, in KiB. SQLite's own choice is 2000; a store whose rows
    /// are in memory already needs less.
    pub cache_kib: u32,
}

impl Format {
    /// Opens the file for writing (WAL, `synchronous=FULL`), after it was checked and brought to the newest
    /// schema. Makes it where there is none. A file that [is large](Self::is_large) is for the caller to
    /// [check](Self::check).
    ///
    /// # Errors
    /// It is corrupt, another program's, of a newer schema or in use.
    pub fn open(&self, path: &Path) -> Result<Connection, OpenError> {
        make_private(path).map_err(|e| self.refuse(path, e.to_string()))?;
        let mut conn = Connection::open(path).map_err(|e| self.refuse(path, reason(&e)))?;
        match self.prepare(path, &mut conn) {
            Ok(None) => Ok(conn),
            Ok(Some(reason)) => Err(self.refuse(path, reason)),
            Err(e) => Err(self.refuse(path, reason(&e))),
        }
    }

    /// Whether the file is shared, and takes a while to read as a whole.
    pub fn is_large(&self, path: &Path) -> bool {
        let bytes = path.metadata().map_or(0, |file| file.len());
        !self.exclusive && bytes > CHECKED_AT_ONCE
    }

    /// Reads the whole file: what is wrong with it, if anything is.
    ///
    /// # Errors
    /// It cannot be read, which a damaged file may be the reason for, too.
    pub fn check(&self, conn: &Connection) -> rusqlite::Result<Option<String>> {
        let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((found != "ok").then(|| format!("it is corrupt: {found}")))
    }

    /// One more connection to a file that was opened before, which only reads.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_reader(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags)
            .and_then(|conn| {
                keep_plans(&conn)?;
                conn.busy_timeout(BUSY).map(|()| conn)
            })
            .map_err(|e| self.refuse(path, reason(&e)))
    }

    /// The error that says why a file of this format cannot be used.
    pub fn refuse(&self, path: &Path, reason: String) -> OpenError {
        OpenError {
            path: path.to_owned(),
            what: self.what,
            reason,
        }
    }

    fn knows(&self, schema: i32) -> bool {
        usize::try_from(schema).is_ok_and(|n| (1..=self.migrations.len()).contains(&n))
    }

    fn unknown(&self, schema: i32) -> String {
        let newest = self.migrations.len();
        format!("its schema is version {schema}, and this program knows 1 to {newest}")
    }

    /// Checks the file and sets the connection up; a text says why the file is none of ours.
    fn prepare(&self, path: &Path, conn: &mut Connection) -> rusqlite::Result<Option<String>> {
        conn.busy_timeout(BUSY)?;
        keep_plans(conn)?;
        let number =
            |sql: &str, conn: &Connection| conn.query_row(sql, [], |row| row.get::<_, i32>(0));
        let application = number("PRAGMA application_id", conn)?;
        let schema = number("PRAGMA user_version", conn)?;
        let tables = number("SELECT count(*) FROM sqlite_schema", conn)?;
        let new = (application, schema, tables) == (0, 0, 0);
        if !new && application != self.application_id {
            return Ok(Some("it belongs to another program".into()));
        }
        if !new && !self.knows(schema) {
            return Ok(Some(self.unknown(schema)));
        }
        if self.exclusive {
            conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        }
        conn.pragma_update(None, "page_size", PAGE)?;
        // Of a new file: pages that become free can be given back to the system.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        conn.pragma_update(None, "cache_size", -i64::from(self.cache_kib))?;
        conn.pragma_update(None, "journal_size_limit", KEPT_WAL)?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have brought it up to date meanwhile.
        let schema = number("PRAGMA user_version", &transaction)?;
        let applied = usize::try_from(schema).unwrap_or(usize::MAX);
        let Some(missing) = self.migrations.get(applied..) else {
            return Ok(Some(self.unknown(schema)));
        };
        for migration in missing {
            transaction.execute_batch(migration)?;
        }
        if !missing.is_empty() {
            let newest = i64::try_from(self.migrations.len()).unwrap_or(0);
            transaction.pragma_update(None, "application_id", self.application_id)?;
            transaction.pragma_update(None, "user_version", newest)?;
        }
        transaction.commit()?;
        if !self.exclusive {
            conn.busy_timeout(PATIENCE)?;
        }
        match self.is_large(path) {
            true => Ok(None),
            false => self.check(conn),
        }
    }
}

/// Makes the file where it is missing, and lets nobody but its owner read it, whatever the folder allows: it names keys and
/// people. SQLite gives its log and its index the mode of the file.
fn make_private(path: &Path) -> std::io::Result<()> {
    if path == Path::new(IN_MEMORY) {
        return Ok(());
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(PRIVATE)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    // The files of an earlier version. Another user's cannot be changed, and need not be.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::set_permissions(&name, Permissions::from_mode(PRIVATE));
    }
    Ok(())
}

/// A statement's plan does not depend on what is bound to it. Without this, SQLite plans a statement anew each time that
/// it is run with another value of certain parameters.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

fn reason(error: &Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process is using it; stop that one, or choose another folder".into()
        }
        _ => error.to_string(),
    }
}
