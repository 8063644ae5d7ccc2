//! The pool of connections, and the statements that run on them.

use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool};
use keywright_domain::ports::RepoError;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::{PostgresError, QueryError, leaves_sessions_unusable};
use super::settings::{PostgresSettings, SILENCE_TIMEOUT};
use super::{schema, session_check};
use crate::error_text::text_with_sources;

type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// Connections to a database. Clones share them.
#[derive(Clone)]
pub struct PostgresPool {
    pool: Pool,
    timeout: Duration,
}

impl PostgresPool {
    /// Connects, migrates the schema, and checks that a commit is durable before it is acknowledged. `timeout` bounds each later
    /// statement.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn connect(
        settings: &PostgresSettings,
        timeout: Duration,
    ) -> Result<Self, PostgresError> {
        let pool = Self {
            pool: settings.pool(timeout)?,
            timeout,
        };
        // Only the checks are bounded: building an index can take long.
        let checked = tokio::time::timeout(SILENCE_TIMEOUT, async {
            session_check::refuse_shared_sessions(settings.config(), settings.tls()?).await?;
            let mut connection = pool.connection().await?;
            check_durability(connection.client()).await?;
            Ok::<_, PostgresError>(connection)
        });
        let timed_out = |_| PostgresError::Unreachable("no answer in time".into());
        let mut connection = checked.await.map_err(timed_out)??;
        schema::migrate(connection.client()).await?;
        // The connection is not released to the pool, so its session ends.
        schema::build_indexes(connection.client()).await?;
        Ok(pool)
    }

    /// Takes a connection out of the pool.
    pub(crate) async fn connection(&self) -> Result<PooledConnection, PostgresError> {
        let client = self.pool.get().await?;
        Ok(PooledConnection(Some(client)))
    }

    /// The rows of a statement that changes nothing. Errors: [`RepoError::Unavailable`].
    pub(crate) async fn read(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, RepoError> {
        let rows = self.query(sql, parameters, RepoError::Unavailable).await;
        rows.map_err(|failed| failed.error)
    }

    /// The rows of a statement that changes something, in a transaction of its own. Errors: [`RepoError::Unavailable`],
    /// [`RepoError::Unknown`].
    pub(crate) async fn change(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, RepoError> {
        let rows = self.try_change(sql, parameters).await;
        rows.map_err(|failed| failed.error)
    }

    /// As [`change`](Self::change). The error also says whether a value is the cause.
    pub(crate) async fn try_change(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        self.query(sql, parameters, RepoError::Unknown).await
    }

    /// `lost` makes the error of a statement whose answer was lost.
    async fn query(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
        lost: fn(String) -> RepoError,
    ) -> Result<Vec<Row>, QueryError> {
        let mut is_sent = false;
        let query = async {
            let connection = self.connection().await;
            let mut connection = connection.map_err(|e| RepoError::Unavailable(e.to_string()))?;
            let client = connection.client();
            // A statement that cannot be prepared is not executed.
            let prepared = client.prepare_cached(sql).await;
            let statement = prepared.map_err(|e| {
                self.close_idle_if_unusable(&e);
                RepoError::Unavailable(text_with_sources(&e))
            })?;
            is_sent = true;
            let rows = client.query(&statement, parameters).await;
            match &rows {
                // This connection is closed, too, when it is dropped.
                Err(error) if self.close_idle_if_unusable(error) => {}
                _ => connection.release(),
            }
            rows.map_err(|error| QueryError::of(&error, lost))
        };
        // The database ends a statement after the same time. This timeout is for a database that no longer answers.
        let rows = tokio::time::timeout(self.timeout, query).await;
        rows.unwrap_or_else(|_| {
            let why = "no answer in time".into();
            let error = if is_sent {
                lost(why)
            } else {
                RepoError::Unavailable(why)
            };
            Err(error.into())
        })
    }

    /// Closes the idle connections if the error makes their sessions useless, and returns whether it does. New connections are
    /// made only to a server that accepts writes.
    fn close_idle_if_unusable(&self, error: &tokio_postgres::Error) -> bool {
        let is_unusable = leaves_sessions_unusable(error);
        if is_unusable {
            tracing::warn!(
                error = text_with_sources(error),
                "connections to the database are closed: their sessions cannot be used any more"
            );
            self.pool.retain(|_, _| false);
        }
        is_unusable
    }
}

/// A connection that returns to the pool only by [`release`](Self::release). Dropping it closes it: the next statement on it
/// would wait for the one that was abandoned.
pub(crate) struct PooledConnection(Option<Client>);

impl PooledConnection {
    pub(crate) fn client(&mut self) -> &mut Client {
        self.0
            .as_mut()
            .expect("`release` takes the connection by value")
    }

    /// Returns the connection, on which no statement is running, to the pool.
    pub(crate) fn release(mut self) {
        drop(self.0.take());
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

/// Refuses a database that acknowledges commits before they are durable: a 200 promises that the event is durable.
async fn check_durability(client: &tokio_postgres::Client) -> Result<(), PostgresError> {
    let show = async |setting: &str| {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await?;
        Ok::<String, PostgresError>(row.get(0))
    };
    let commit = show("synchronous_commit").await?;
    if !matches!(commit.as_str(), "on" | "remote_apply") {
        return Err(PostgresError::Unfit(format!(
            "its synchronous_commit is {commit}, so that a crash would lose what was confirmed; set it to on"
        )));
    }
    if show("fsync").await? == "off" {
        tracing::warn!("the database has fsync off: a crash of its machine loses confirmed writes");
    }
    Ok(())
}
