use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::{Value, json};

use crate::engine::{Document, Object, Section};
use crate::name::ShadowName;
use crate::service::Record;

/// "KWsh": tells our files from those of other programs.
const APPLICATION_ID: i32 = 0x4b57_7368;

/// Of the tables below.
const SCHEMA_VERSION: i32 = 1;

/// How long another process may hold the file before it counts as in use.
const BUSY: Duration = Duration::from_secs(1);

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

/// A file that cannot be used as a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {} as a store of shadows: {reason}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// A record with the thing and the shadow that it belongs to.
pub(crate) type Entry = ((String, ShadowName), Record);

/// Opens a store for this process alone, with all that it holds. Makes the file where there is none.
pub(crate) fn open(path: &Path) -> Result<(Connection, Vec<Entry>), OpenError> {
    let refuse = |reason: String| OpenError {
        path: path.to_owned(),
        reason,
    };
    let mut conn = Connection::open(path).map_err(|e| refuse(e.to_string()))?;
    match prepare(&mut conn) {
        Ok(None) => {}
        Ok(Some(reason)) => return Err(refuse(reason)),
        Err(e) => return Err(refuse(e.to_string())),
    }
    let entries = all(&conn).map_err(|e| refuse(e.to_string()))?;
    Ok((conn, entries))
}

/// Checks the file and sets the connection up; a text says why the file is none of ours.
fn prepare(conn: &mut Connection) -> rusqlite::Result<Option<String>> {
    conn.busy_timeout(BUSY)?;
    let number = |sql: &str, conn: &Connection| conn.query_row(sql, [], |row| row.get::<_, i32>(0));
    let application = number("PRAGMA application_id", conn)?;
    let schema = number("PRAGMA user_version", conn)?;
    let tables = number("SELECT count(*) FROM sqlite_schema", conn)?;
    let new = (application, schema, tables) == (0, 0, 0);
    if !new && application != APPLICATION_ID {
        return Ok(Some("it belongs to another program".into()));
    }
    if !new && schema != SCHEMA_VERSION {
        return Ok(Some(format!(
            "its schema is version {schema}, not {SCHEMA_VERSION}"
        )));
    }
    // Exclusive, because documents in memory would not follow what another process writes.
    conn.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
    )?;
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if new {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then(|| format!("it is corrupt: {found}")))
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

fn text(document: &Document) -> String {
    let section = |s: &Section| json!({ "state": s.state, "metadata": s.metadata });
    json!({ "desired": section(&document.desired), "reported": section(&document.reported) })
        .to_string()
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
    let document: Value =
        serde_json::from_str(&row.get::<_, String>(first + 2)?).map_err(|e| broken(e.into()))?;
    let object = |section: &str, part: &str| -> rusqlite::Result<Object> {
        let found = document[section][part].as_object().cloned();
        found.ok_or_else(|| broken(format!("a document without {section}.{part}").into()))
    };
    let section = |name: &str| -> rusqlite::Result<Section> {
        Ok(Section {
            state: object(name, "state")?,
            metadata: object(name, "metadata")?,
        })
    };
    Ok(Record::Live(Document {
        desired: section("desired")?,
        reported: section("reported")?,
        version,
    }))
}
