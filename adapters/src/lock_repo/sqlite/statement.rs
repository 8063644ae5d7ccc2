//! Execution of statements, and reading of columns.

use keywright_domain::ports::RepoError;
use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, Params, Row, ToSql};

use crate::lock_repo::row_mapping::{HasColumns, WrongType};

pub(super) fn unavailable(error: rusqlite::Error) -> RepoError {
    RepoError::Unavailable(error.to_string())
}

/// An error ended the transaction that a read shares with others.
pub(super) fn transaction_ended() -> RepoError {
    RepoError::Unavailable("another read of the same transaction has failed".into())
}

pub(super) fn prepare<'a>(
    conn: &'a Connection,
    sql: &str,
) -> Result<CachedStatement<'a>, RepoError> {
    conn.prepare_cached(sql).map_err(unavailable)
}

/// Executes a statement, and returns how many rows it changed.
pub(super) fn execute(
    conn: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<usize, RepoError> {
    let mut statement = prepare(conn, sql)?;
    statement.execute(params).map_err(unavailable)
}

/// All rows of a query. The error is that of the first row that `read` cannot read.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: &[(&str, &dyn ToSql)],
    read: impl Fn(&Row<'_>) -> Result<T, RepoError>,
) -> Result<Vec<T>, RepoError> {
    let mut statement = prepare(conn, sql)?;
    let rows = statement
        .query_map(params, |row| Ok(read(row)))
        .map_err(unavailable)?;
    rows.map(|row| row.map_err(unavailable)?).collect()
}

impl<T: FromSql> HasColumns<T> for Row<'_> {
    fn column(&self, name: &'static str) -> Result<T, WrongType> {
        self.get(name).map_err(|_| WrongType)
    }
}
