use std::path::Path;
use std::sync::Arc;

use keywright_sqlite::{FileFormat, OpenError};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::engine::{Document, Section};
use crate::name::ShadowName;
use crate::service::Record;

/// Exclusive, because documents in memory would not follow what another process writes.
pub(crate) const FORMAT: FileFormat = FileFormat {
    description: "a store of shadows",
    application_id: 0x4b57_7368, // "KWsh"
    migrations: &[SCHEMA],
    exclusive: true,
    cache_kib: 256,
};

/// A classic shadow has the name that no named one can have.
const SCHEMA: &str = "CREATE TABLE shadows (
    thing TEXT NOT NULL,
    shadow TEXT NOT NULL,
    version INTEGER NOT NULL,
    deleted_at INTEGER,
    document TEXT,
    PRIMARY KEY (thing, shadow),
    CHECK ((deleted_at IS NULL) <> (document IS NULL))
) STRICT, WITHOUT ROWID";

/// A record with the thing and the shadow that it belongs to.
pub(crate) type Entry = ((String, ShadowName), Record);

/// Opens a store for this process alone, with all that it holds. Makes the file where there is none.
pub(crate) fn open(path: &Path) -> Result<(Connection, Vec<Entry>), OpenError> {
    let conn = FORMAT.open(path)?;
    let entries = all(&conn).map_err(|e| FORMAT.open_error(path, e))?;
    Ok((conn, entries))
}

/// What is stored of a shadow, as the transaction sees it.
pub(crate) fn read(
    transaction: &Transaction<'_>,
    thing: &str,
    shadow: &ShadowName,
) -> rusqlite::Result<Option<Record>> {
    transaction
        .prepare_cached(
            "SELECT version, deleted_at, document FROM shadows WHERE thing = ?1 AND shadow = ?2",
        )?
        .query_row(params![thing, column(shadow)], |row| record(row, 0))
        .optional()
}

/// Stores a record in its place.
pub(crate) fn write(
    transaction: &Transaction<'_>,
    thing: &str,
    shadow: &ShadowName,
    record: &Record,
) -> rusqlite::Result<()> {
    let (version, deleted_at, document) = match record {
        Record::Live(document) => (document.version, None, Some(text(document))),
        Record::Tombstone {
            version,
            deleted_at,
        } => (*version, Some(integer(*deleted_at)?), None),
    };
    transaction
        .prepare_cached("INSERT OR REPLACE INTO shadows VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            thing,
            column(shadow),
            integer(version)?,
            deleted_at,
            document
        ])?;
    Ok(())
}

fn all(conn: &Connection) -> rusqlite::Result<Vec<Entry>> {
    conn.prepare("SELECT thing, shadow, version, deleted_at, document FROM shadows")?
        .query_map([], |row| {
            let name: String = row.get(1)?;
            let shadow = if name.is_empty() {
                ShadowName::Classic
            } else {
                ShadowName::Named(name)
            };
            Ok(((row.get(0)?, shadow), record(row, 2)?))
        })?
        .collect()
}

fn column(shadow: &ShadowName) -> &str {
    match shadow {
        ShadowName::Classic => "",
        ShadowName::Named(name) => name,
    }
}

fn integer(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// Both sections of a document, as they are stored.
#[derive(Serialize, Deserialize)]
struct Sections<S> {
    desired: S,
    reported: S,
}

fn text(document: &Document) -> String {
    let sections: Sections<&Section> = Sections {
        desired: &document.desired,
        reported: &document.reported,
    };
    serde_json::to_string(&sections).expect("objects, whose names are texts")
}

/// Reads `version`, `deleted_at` and `document`, which start at this column.
fn record(row: &Row<'_>, first: usize) -> rusqlite::Result<Record> {
    let unsigned = |value: i64, at| {
        u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
    };
    let version = unsigned(row.get(first)?, first)?;
    if let Some(deleted_at) = row.get::<_, Option<i64>>(first + 1)? {
        let deleted_at = unsigned(deleted_at, first + 1)?;
        return Ok(Record::Tombstone {
            version,
            deleted_at,
        });
    }
    let broken = |e: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(first + 2, rusqlite::types::Type::Text, e)
    };
    let text: String = row.get(first + 2)?;
    let sections: Sections<Section> = serde_json::from_str(&text).map_err(|e| broken(e.into()))?;
    Ok(Record::Live(Arc::new(Document {
        desired: sections.desired.into(),
        reported: sections.reported.into(),
        version,
    })))
}
