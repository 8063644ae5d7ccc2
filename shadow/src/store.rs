//! The SQLite file of a durable service.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use keywright_sqlite::{FileFormat, OpenError};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::engine::{Document, Section};
use crate::name::{ShadowKey, ShadowName};
use crate::record::Record;

/// Exclusive, because the service keeps all documents in memory and would not see changes of another process.
pub(crate) const FORMAT: FileFormat = FileFormat {
    description: "a store of shadows",
    application_id: 0x4b57_7368, // "KWsh"
    migrations: &[SCHEMA],
    exclusive: true,
    cache_kib: 256,
};

/// The classic shadow has the empty name, which no named shadow can have.
const SCHEMA: &str = "CREATE TABLE shadows (
    thing TEXT NOT NULL,
    shadow TEXT NOT NULL,
    version INTEGER NOT NULL,
    deleted_at INTEGER,
    document TEXT,
    PRIMARY KEY (thing, shadow),
    CHECK ((deleted_at IS NULL) <> (document IS NULL))
) STRICT, WITHOUT ROWID";

/// Opens the file, which is locked while its connection is open, and reads all its records. A missing file is created.
pub(crate) fn open(path: &Path) -> Result<(Connection, HashMap<ShadowKey, Record>), OpenError> {
    let conn = FORMAT.open(path)?;
    let records = read_all(&conn).map_err(|e| FORMAT.open_error(path, e))?;
    Ok((conn, records))
}

/// Reads one record.
pub(crate) fn read(
    transaction: &Transaction<'_>,
    key: &ShadowKey,
) -> rusqlite::Result<Option<Record>> {
    transaction
        .prepare_cached(
            "SELECT version, deleted_at, document FROM shadows WHERE thing = ?1 AND shadow = ?2",
        )?
        .query_row(params![key.thing, name_column(&key.shadow)], |row| {
            read_record(row, 0)
        })
        .optional()
}

/// Inserts or replaces a record.
pub(crate) fn write(
    transaction: &Transaction<'_>,
    key: &ShadowKey,
    record: &Record,
) -> rusqlite::Result<()> {
    let (version, deleted_at, document) = match record {
        Record::Live(document) => (document.version, None, Some(sections_json(document))),
        Record::Tombstone {
            version,
            deleted_at,
        } => (*version, Some(integer(*deleted_at)?), None),
    };
    transaction
        .prepare_cached("INSERT OR REPLACE INTO shadows VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            key.thing,
            name_column(&key.shadow),
            integer(version)?,
            deleted_at,
            document
        ])?;
    Ok(())
}

fn read_all(conn: &Connection) -> rusqlite::Result<HashMap<ShadowKey, Record>> {
    conn.prepare("SELECT thing, shadow, version, deleted_at, document FROM shadows")?
        .query_map([], |row| {
            let name: String = row.get(1)?;
            let shadow = match name.is_empty() {
                true => ShadowName::Classic,
                false => ShadowName::Named(name),
            };
            let thing = row.get(0)?;
            Ok((ShadowKey { thing, shadow }, read_record(row, 2)?))
        })?
        .collect()
}

fn name_column(shadow: &ShadowName) -> &str {
    match shadow {
        ShadowName::Classic => "",
        ShadowName::Named(name) => name,
    }
}

fn integer(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// The content of the `document` column.
#[derive(Serialize, Deserialize)]
struct Sections<S> {
    desired: S,
    reported: S,
}

fn sections_json(document: &Document) -> String {
    let sections: Sections<&Section> = Sections {
        desired: &document.desired,
        reported: &document.reported,
    };
    serde_json::to_string(&sections).expect("maps with string keys become JSON")
}

/// Reads a record from the columns `version`, `deleted_at` and `document`, of which `first` is the first.
fn read_record(row: &Row<'_>, first: usize) -> rusqlite::Result<Record> {
    let unsigned = |value: i64, column| {
        u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
    };
    let version = unsigned(row.get(first)?, first)?;
    if let Some(deleted_at) = row.get::<_, Option<i64>>(first + 1)? {
        return Ok(Record::Tombstone {
            version,
            deleted_at: unsigned(deleted_at, first + 1)?,
        });
    }
    let json: String = row.get(first + 2)?;
    let sections: Sections<Section> = serde_json::from_str(&json).map_err(|e| {
        let text = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(first + 2, text, e.into())
    })?;
    Ok(Record::Live(Arc::new(Document {
        desired: sections.desired.into(),
        reported: sections.reported.into(),
        version,
    })))
}
