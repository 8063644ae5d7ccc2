//! What errors of PostgreSQL mean.

use std::error::Error;

use deadpool_postgres::PoolError;
use keywright_domain::ports::RepoError;
use tokio_postgres::error::SqlState;

use crate::error_text::text_with_sources;

/// Why a database cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// It does not answer. It may do so later.
    #[error("the database does not answer: {0}")]
    Unreachable(String),
    /// It answers and accepts no writes. It may do so later.
    #[error("the database takes no writes: it is a standby, or is set to be read-only")]
    ReadOnly,
    /// It answers and is unsuitable.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
}

impl PostgresError {
    /// Whether the error may disappear without a change of the settings.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::ReadOnly)
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        if is_read_only(&error) {
            return Self::ReadOnly;
        }
        // Insufficient resources, operator intervention, system error, connection exception.
        let is_transient = |code: &SqlState| matches!(&code.code()[..2], "53" | "57" | "58" | "08");
        match error.as_db_error() {
            Some(answer) if !is_transient(answer.code()) => Self::Unfit(text_with_sources(&error)),
            _ => Self::Unreachable(text_with_sources(&error)),
        }
    }
}

impl From<PoolError> for PostgresError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// Whether the server rejected a write, or the library refused the connection because the server would.
fn is_read_only(error: &tokio_postgres::Error) -> bool {
    let source = error.source().and_then(|e| e.downcast_ref());
    let kind = source.map(std::io::Error::kind);
    let refused_by_library = error.as_db_error().is_none()
        && kind == Some(std::io::ErrorKind::PermissionDenied)
        && text_with_sources(error).contains("does not allow writes");
    refused_by_library || error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// A statement that failed.
pub(crate) struct QueryError {
    pub(crate) error: RepoError,
    /// A value is the cause: the statement may succeed with other values.
    pub(crate) is_caused_by_values: bool,
}

impl QueryError {
    pub(crate) const fn caused_by_values(error: RepoError) -> Self {
        Self {
            error,
            is_caused_by_values: true,
        }
    }

    /// The error of a statement that was sent. `lost` makes the error of one whose answer was lost.
    pub(super) fn of(error: &tokio_postgres::Error, lost: fn(String) -> RepoError) -> Self {
        Self {
            error: failed(error, lost),
            is_caused_by_values: is_caused_by_values(error),
        }
    }
}

impl From<RepoError> for QueryError {
    fn from(error: RepoError) -> Self {
        Self {
            error,
            is_caused_by_values: false,
        }
    }
}

/// Data exceptions (SQLSTATE class 22) and violated constraints (23).
fn is_caused_by_values(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(SqlState::code);
    code.is_some_and(|code| matches!(&code[..2], "22" | "23"))
}

/// The error of a statement that was sent. If the database answered, the statement was not applied, unless the answer is that the
/// database is shutting down.
pub(crate) fn failed(error: &tokio_postgres::Error, lost: fn(String) -> RepoError) -> RepoError {
    let is_shutting_down = |code: &SqlState| match &code.code()[..2] {
        "08" | "58" | "XX" => true,
        "57" => *code != SqlState::QUERY_CANCELED,
        _ => false,
    };
    match error.as_db_error() {
        Some(answer) if !is_shutting_down(answer.code()) => {
            RepoError::Unavailable(text_with_sources(error))
        }
        _ => lost(text_with_sources(error)),
    }
}

/// Whether the sessions of all connections are useless: the server has become read-only (a standby, for instance), or a prepared
/// statement belongs to another session, as behind a pooler that shares sessions among its clients.
pub(super) fn leaves_sessions_unusable(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}
