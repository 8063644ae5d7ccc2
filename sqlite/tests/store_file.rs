//! Which files a format opens, migrates and rejects.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keywright_sqlite::{FileError, FileFormat};
use rusqlite::Connection;
use tempfile::TempDir;

const V1: &str = "CREATE TABLE texts (text TEXT) STRICT";
const V2: &str = "ALTER TABLE texts ADD COLUMN length INTEGER";

const FORMAT: FileFormat = FileFormat {
    description: "a store of texts",
    application_id: 42,
    migrations: &[V1, V2],
    exclusive: true,
    cache_kib: 256,
};

/// The same store in an earlier version of the program, and shared.
const EARLIER: FileFormat = FileFormat {
    migrations: &[V1],
    exclusive: false,
    ..FORMAT
};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("texts.db");
    (folder, file)
}

fn rejection(file: &Path) -> FileError {
    let error = FORMAT.open(file).expect_err("rejected");
    let text = error.to_string();
    let prefix = format!("cannot use {} as a store of texts: ", file.display());
    assert!(text.starts_with(&prefix), "{text}");
    error.error
}

#[test]
fn migrates_a_file_of_an_earlier_version() {
    let (_folder, file) = folder();
    let conn = EARLIER.open(&file).expect("opened");
    conn.execute("INSERT INTO texts VALUES ('a')", [])
        .expect("inserted");
    drop(conn);
    let conn = FORMAT.open(&file).expect("migrated");
    let sql = "SELECT count(*) FROM texts WHERE length IS NULL";
    let kept: i64 = conn.query_row(sql, [], |row| row.get(0)).expect("a count");
    assert_eq!(kept, 1);
}

#[test]
fn makes_files_that_only_their_owner_reads() {
    let (_folder, file) = folder();
    let mode = || file.metadata().expect("a file").mode() & 0o777;
    drop(FORMAT.open(&file).expect("made"));
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("set");
    drop(FORMAT.open(&file).expect("opened"));
    assert_eq!(mode(), 0o600);
}

#[test]
fn rejects_a_file_in_use() {
    let (_folder, file) = folder();
    let conn = FORMAT.open(&file).expect("opened");
    assert!(matches!(rejection(&file), FileError::InUse));
    drop(conn);
    FORMAT.open(&file).expect("opened");
}

#[test]
fn rejects_a_file_that_is_not_a_database() {
    let (_folder, file) = folder();
    let text = b"this is not a database, whatever its name".repeat(99);
    std::fs::write(&file, text).expect("written");
    let text = rejection(&file).to_string();
    assert!(text.contains("not a database"), "{text}");
}

#[test]
fn rejects_a_file_with_a_damaged_page() {
    let (_folder, file) = folder();
    let conn = FORMAT.open(&file).expect("opened");
    for _ in 0..16 {
        let text = "x".repeat(3000);
        conn.execute("INSERT INTO texts (text) VALUES (?1)", [text])
            .expect("inserted");
    }
    drop(conn);
    let mut bytes = std::fs::read(&file).expect("read");
    // The first page, which has the application id, stays.
    bytes[2048..].fill(0xa5);
    std::fs::write(&file, bytes).expect("written");
    rejection(&file);
}

#[test]
fn rejects_other_programs_and_unknown_schemas() {
    let (_folder, file) = folder();
    drop(FORMAT.open(&file).expect("made"));
    let set = |pragma: &str| {
        let conn = Connection::open(&file).expect("opened");
        conn.execute_batch(pragma).expect("set");
    };
    set("PRAGMA user_version = 7");
    let unknown = rejection(&file);
    assert!(matches!(
        unknown,
        FileError::UnknownSchema {
            found: 7,
            newest: 2
        }
    ));
    assert!(unknown.to_string().contains("version 7"));
    set("PRAGMA application_id = 5");
    let other = rejection(&file);
    assert!(other.to_string().contains("another program"));
}
