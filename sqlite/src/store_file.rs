use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::open_error::{FileError, OpenError};

/// How long opening a file, and reading it, waits for another process that has locked it.
const OPEN_BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a writer of a shared file waits for another process that writes, such as one that imports locks.
const WRITE_BUSY_TIMEOUT: Duration = Duration::from_secs(8);

/// A shared file of more bytes is not checked while it is opened, because reading it takes more than a tenth of a second.
const MAX_BYTES_CHECKED_ON_OPEN: u64 = 64 * 1024 * 1024;

/// The page size of a new file, in bytes. A commit writes each page that it changed to the log as a whole, and most commits change
/// a few hundred bytes of each: with SQLite's default of 4096 a write takes a tenth longer, and with 1024 files are larger by
/// three quarters.
const PAGE_BYTES: u32 = 2048;

/// SQLite truncates the write-ahead log to this many bytes when it starts the log anew.
const WAL_SIZE_LIMIT: i64 = 4 * 1024 * 1024;

/// SQLite's name for a database without a file.
const IN_MEMORY: &str = ":memory:";

/// The mode of a store's files: only their owner reads and writes them.
const OWNER_ONLY: u32 = 0o600;

/// How the files of one kind of store are recognized, migrated and opened.
#[derive(Clone, Copy, Debug)]
pub struct FileFormat {
    /// What a file is, with its article, for error texts: "a store of shadows".
    pub description: &'static str,
    /// Tells the files from those of other programs (`PRAGMA application_id`).
    pub application_id: i32,
    /// The SQL that brings a file from each schema version to the next, starting with an empty file. A file's schema version is the
    /// number of migrations that were applied to it (`PRAGMA user_version`).
    pub migrations: &'static [&'static str],
    /// Whether the connection that opens a file keeps it locked until it is closed.
    pub exclusive: bool,
    /// The page cache of a connection, in KiB. SQLite's default is 2000; a store that keeps its rows in memory needs less.
    pub cache_kib: u32,
}

impl FileFormat {
    /// Opens the file for writing (WAL, `synchronous=FULL`), migrates it to the newest schema, and checks its integrity unless it
    /// [is large](Self::is_large); the caller of a large file [checks](Self::check_integrity) it. A missing file is created.
    ///
    /// # Errors
    /// The file is corrupt, belongs to another program, has a newer schema, or is in use.
    pub fn open(&self, path: &Path) -> Result<Connection, OpenError> {
        self.try_open(path).map_err(|e| self.open_error(path, e))
    }

    /// Whether the file is shared and so large (more than 64 MiB) that an integrity check takes a while.
    pub fn is_large(&self, path: &Path) -> bool {
        let bytes = path.metadata().map_or(0, |file| file.len());
        !self.exclusive && bytes > MAX_BYTES_CHECKED_ON_OPEN
    }

    /// Reads the whole file to check its integrity.
    ///
    /// # Errors
    /// [`FileError::Corrupt`], or the file cannot be read, which may also be due to damage.
    pub fn check_integrity(&self, conn: &Connection) -> Result<(), FileError> {
        let finding: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        match finding == "ok" {
            true => Ok(()),
            false => Err(FileError::Corrupt(finding)),
        }
    }

    /// Opens one more connection, which only reads, to a file that [`open`](Self::open) has prepared.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open_reader(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags)
            .and_then(|conn| {
                keep_query_plans(&conn)?;
                conn.busy_timeout(OPEN_BUSY_TIMEOUT).map(|()| conn)
            })
            .map_err(|e| self.open_error(path, e))
    }

    /// The error that says why a file of this format cannot be used.
    pub fn open_error(&self, path: &Path, error: impl Into<FileError>) -> OpenError {
        OpenError {
            path: path.to_owned(),
            description: self.description,
            error: error.into(),
        }
    }

    fn try_open(&self, path: &Path) -> Result<Connection, FileError> {
        make_private(path)?;
        let mut conn = Connection::open(path)?;
        conn.busy_timeout(OPEN_BUSY_TIMEOUT)?;
        keep_query_plans(&conn)?;
        self.recognize(&conn)?;
        self.configure(&conn)?;
        self.migrate(&mut conn)?;
        if !self.exclusive {
            conn.busy_timeout(WRITE_BUSY_TIMEOUT)?;
        }
        if !self.is_large(path) {
            self.check_integrity(&conn)?;
        }
        Ok(conn)
    }

    /// Checks that the file is empty or of this format, before anything of it is changed.
    fn recognize(&self, conn: &Connection) -> Result<(), FileError> {
        let application = pragma(conn, "application_id")?;
        let schema = schema_version(conn)?;
        let tables: i32 =
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if (application, schema, tables) == (0, 0, 0) {
            return Ok(());
        }
        if application != self.application_id {
            return Err(FileError::OtherProgram);
        }
        match usize::try_from(schema) {
            Ok(applied) if (1..=self.migrations.len()).contains(&applied) => Ok(()),
            _ => Err(self.unknown_schema(schema)),
        }
    }

    fn configure(&self, conn: &Connection) -> rusqlite::Result<()> {
        if self.exclusive {
            conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        }
        conn.pragma_update(None, "page_size", PAGE_BYTES)?;
        // Only takes effect in a new file: its free pages can be given back to the file system.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        conn.pragma_update(None, "cache_size", -i64::from(self.cache_kib))?;
        conn.pragma_update(None, "journal_size_limit", WAL_SIZE_LIMIT)
    }

    fn migrate(&self, conn: &mut Connection) -> Result<(), FileError> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read again inside the transaction: another process may have migrated the file in the meantime.
        let schema = schema_version(&transaction)?;
        let applied = usize::try_from(schema).unwrap_or(usize::MAX);
        let missing = self.migrations.get(applied..);
        let missing = missing.ok_or_else(|| self.unknown_schema(schema))?;
        for migration in missing {
            transaction.execute_batch(migration)?;
        }
        if !missing.is_empty() {
            let newest = i64::try_from(self.migrations.len()).unwrap_or(0);
            transaction.pragma_update(None, "application_id", self.application_id)?;
            transaction.pragma_update(None, "user_version", newest)?;
        }
        Ok(transaction.commit()?)
    }

    fn unknown_schema(&self, found: i32) -> FileError {
        FileError::UnknownSchema {
            found,
            newest: self.migrations.len(),
        }
    }
}

fn schema_version(conn: &Connection) -> rusqlite::Result<i32> {
    pragma(conn, "user_version")
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i32> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Creates the file if it is missing, and lets only its owner read it, whatever the folder allows: stores name keys and people.
/// SQLite gives its log and its index the mode of the file.
fn make_private(path: &Path) -> std::io::Result<()> {
    if path == Path::new(IN_MEMORY) {
        return Ok(());
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    // Files that an earlier version created. Those of another user cannot be changed, and need not be.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::set_permissions(&name, Permissions::from_mode(OWNER_ONLY));
    }
    Ok(())
}

/// Makes query plans independent of bound values. Otherwise SQLite prepares a statement again whenever certain parameters change.
fn keep_query_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}
