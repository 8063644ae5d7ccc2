//! A PostgreSQL database that several replicas share, for more than one port: its connections, its schema, and what
//! its errors mean.

mod pooler;
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime,
};
use keywright_domain::ports::RepoError;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls;

/// The time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// From when on a connection that does not answer counts as lost.
const SILENT: Duration = Duration::from_secs(10);

/// How a database is reached.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    config: Config,
    ca: Option<PathBuf>,
    connections: usize,
}

/// A database that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// It does not answer; it may do so later.
    #[error("the database does not answer: {0}")]
    Unreachable(String),
    /// It answers, and takes no writes; it may do so later.
    #[error("the database takes no writes: it is a standby, or is set to be read-only")]
    ReadOnly,
    /// It answers, and cannot be used.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
}

impl PostgresError {
    pub(crate) fn of(error: tokio_postgres::Error) -> Self {
        if is_read_only(&error) {
            return Self::ReadOnly;
        }
        let said = error.as_db_error().map(|e| e.code().clone());
        let passing = |code: &SqlState| matches!(&code.code()[..2], "53" | "57" | "58" | "08");
        match said {
            Some(code) if !passing(&code) => Self::Unfit(describe(&error)),
            _ => Self::Unreachable(describe(&error)),
        }
    }

    fn of_pool(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::of(error),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl PostgresError {
    /// Whether it may be gone later, without anybody changing the settings.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::ReadOnly)
    }
}

/// Whether the server has said so, or the library has asked it before it let the connection be used.
fn is_read_only(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref());
    let kind = source.map(std::io::Error::kind);
    let refused_by_library = error.as_db_error().is_none()
        && kind == Some(std::io::ErrorKind::PermissionDenied)
        && describe(error).contains("does not allow writes");
    refused_by_library || error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

impl PostgresSettings {
    /// Reads a URL such as `postgres://keywright@db.example/keywright`. Over a network TLS is required unless the URL
    /// has another `sslmode`, and the server's certificate is checked.
    ///
    /// # Errors
    /// It is none; the text says why.
    pub fn new(url: &str) -> Result<Self, String> {
        let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| {
            format!(
                "{}; an example is postgres://keywright@db.example/keywright",
                describe(&e)
            )
        })?;
        if config.get_password().is_some() {
            let why =
                "a URL is no place for a password, because others can read it; put it in a file";
            return Err(why.into());
        }
        if config.get_hosts().is_empty() {
            return Err("the URL names no host".into());
        }
        let local = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
            Host::Unix(_) => true,
        });
        if !local && !url.contains("sslmode=") {
            config.ssl_mode(SslMode::Require);
        }
        // A standby answers reads, and would be kept for good where a name leads to it for a while.
        if !url.contains("target_session_attrs=") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config
            .application_name("keywright")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENT)
            .keepalives_idle(SILENT);
        Ok(Self {
            config,
            ca: None,
            connections: 16,
        })
    }

    /// With a password.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// With the certificates, in PEM, of who may have issued the server's, instead of the system's.
    pub fn set_ca(&mut self, file: &Path) {
        self.ca = Some(file.to_owned());
    }

    /// Reads the files, without using them.
    ///
    /// # Errors
    /// One cannot be read or used; the text names it.
    pub fn check_files(&self) -> Result<(), String> {
        match &self.ca {
            Some(ca) => tls::client_config(Some(ca)).map(drop),
            None => Ok(()),
        }
    }

    /// With so many connections at most.
    pub const fn set_connections(&mut self, connections: usize) {
        self.connections = connections;
    }

    /// Where it is, without credentials.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) if name.contains(':') => format!("[{name}]"),
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let name = self.config.get_dbname().or(self.config.get_user());
        format!("{host}:{port}/{}", name.unwrap_or_default())
    }

    fn tls(&self) -> Result<MakeRustlsConnect, PostgresError> {
        let tls = tls::client_config(self.ca.as_deref()).map_err(PostgresError::Unfit)?;
        Ok(MakeRustlsConnect::new(tls))
    }

    /// `timeout`: what a statement may take, which the database itself sees to as well, so that one that nobody waits
    /// for any more does not hold others up.
    fn pool(&self, timeout: Duration) -> Result<Pool, PostgresError> {
        let manager_config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(self.config.clone(), self.tls()?, manager_config);
        let millis = timeout.as_millis();
        // A save waits for the lock's row and then sees it as it is. At a stricter level, which a database may have as its
        // default, it would fail instead.
        let session = format!(
            "SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}; \
             SET default_transaction_isolation = 'read committed'"
        );
        let set = Hook::async_fn(move |client: &mut ClientWrapper, _| {
            let session = session.clone();
            Box::pin(async move {
                let set = client.batch_execute(&session).await;
                set.map_err(HookError::Backend)
            })
        });
        Pool::builder(manager)
            .max_size(self.connections)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(SILENT))
            .wait_timeout(Some(timeout))
            .recycle_timeout(Some(SILENT))
            .post_create(set)
            .build()
            .map_err(|e| PostgresError::Unfit(e.to_string()))
    }
}

/// The connections, which clones share.
#[derive(Clone)]
pub struct PostgresPool {
    pool: Pool,
    timeout: Duration,
}

impl PostgresPool {
    /// Connects, brings the schema up to date, and checks that a commit is durable before it is answered.
    /// `timeout` is the longest time that a statement may take.
    ///
    /// # Errors
    /// It does not answer or cannot be used.
    pub async fn connect(
        settings: &PostgresSettings,
        timeout: Duration,
    ) -> Result<Self, PostgresError> {
        let database = Self {
            pool: settings.pool(timeout)?,
            timeout,
        };
        // To make an index may take long; to say something does not.
        let checked = tokio::time::timeout(SILENT, async {
            pooler::refuse_shared_sessions(&settings.config, settings.tls()?).await?;
            database.check().await
        });
        let checked = checked.await;
        let mut lent =
            checked.map_err(|_| PostgresError::Unreachable("no answer in time".into()))??;
        schema::migrate(lent.client()).await?;
        lent.release();
        Ok(database)
    }

    async fn check(&self) -> Result<PooledConnection, PostgresError> {
        let mut lent = self.connection().await?;
        check_durability(lent.client()).await?;
        Ok(lent)
    }

    /// A connection for as long as something takes.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn connection(&self) -> Result<PooledConnection, PostgresError> {
        let client = self.pool.get().await.map_err(PostgresError::of_pool)?;
        Ok(PooledConnection(Some(client)))
    }

    /// The rows of a statement that changes nothing.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`].
    pub(crate) async fn read(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, RepoError> {
        let rows = self.query(sql, parameters, RepoError::Unavailable).await;
        rows.map_err(|failed| failed.error)
    }

    /// The rows of a statement that is one transaction.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    pub(crate) async fn change(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, RepoError> {
        let rows = self.try_change(sql, parameters).await;
        rows.map_err(|failed| failed.error)
    }

    /// As [`change`](Self::change).
    ///
    /// # Errors
    /// The same, and whether other values would do.
    pub(crate) async fn try_change(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        self.query(sql, parameters, RepoError::Unknown).await
    }

    /// What is lost on the way is `lost`'s to say.
    async fn query(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
        lost: fn(String) -> RepoError,
    ) -> Result<Vec<Row>, QueryError> {
        let mut sent = false;
        let asked = async {
            let lent = self.connection().await;
            let mut lent = lent.map_err(|e| RepoError::Unavailable(e.to_string()))?;
            let client = lent.client();
            // What cannot be prepared was not done.
            let prepared = client.prepare_cached(sql).await;
            let statement = prepared.map_err(|e| {
                self.leave_if_unusable(&e);
                RepoError::Unavailable(describe(&e))
            })?;
            sent = true;
            let rows = client.query(&statement, parameters).await;
            match &rows {
                // The connection is closed.
                Err(error) if self.leave_if_unusable(error) => {}
                _ => lent.release(),
            }
            rows.map_err(|error| QueryError {
                by_values: refuses_values(&error),
                error: failed(&error, lost),
            })
        };
        // The database ends a statement after that time; this is for a database that says nothing any more.
        let asked = tokio::time::timeout(self.timeout, asked).await;
        asked.unwrap_or_else(|_| {
            let why = "no answer in time".into();
            let error = if sent {
                lost(why)
            } else {
                RepoError::Unavailable(why)
            };
            Err(error.into())
        })
    }
}

impl PostgresPool {
    /// Closes the idle connections where an error says that their sessions are of no use any more; answers whether it does.
    /// A new connection is made to a server that takes writes, or not at all.
    fn leave_if_unusable(&self, error: &tokio_postgres::Error) -> bool {
        let unusable = error.code().is_some_and(leaves_sessions_unusable);
        if unusable {
            tracing::warn!(
                error = describe(error),
                "connections to the database are closed: their sessions cannot be used any more"
            );
            self.pool.retain(|_, _| false);
        }
        unusable
    }
}

/// The server has become read-only, a standby for instance; or a prepared statement is not the session's, as behind a pooler
/// that shares sessions among its clients.
fn leaves_sessions_unusable(code: &SqlState) -> bool {
    [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ]
    .contains(code)
}

/// A statement that failed.
pub(crate) struct QueryError {
    pub(crate) error: RepoError,
    /// A value that it was given is why: with others it may be done.
    pub(crate) by_values: bool,
}

impl QueryError {
    pub(crate) const fn by_values(error: RepoError) -> Self {
        Self {
            error,
            by_values: true,
        }
    }
}

impl From<RepoError> for QueryError {
    fn from(error: RepoError) -> Self {
        Self {
            error,
            by_values: false,
        }
    }
}

/// Data that are none (SQLSTATE class 22), or that break a constraint (23).
fn refuses_values(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(SqlState::code);
    code.is_some_and(|code| matches!(&code[..2], "22" | "23"))
}

pub(crate) type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// A 200 says that the event is durable.
async fn check_durability(client: &tokio_postgres::Client) -> Result<(), PostgresError> {
    let show = async |setting: &str| {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
        row.map(|row| row.get::<_, String>(0))
            .map_err(PostgresError::of)
    };
    let commit = show("synchronous_commit").await?;
    if !matches!(commit.as_str(), "on" | "remote_apply") {
        return Err(PostgresError::Unfit(format!(
            "its synchronous_commit is {commit}, so that a crash would lose what was confirmed; set it to on"
        )));
    }
    if show("fsync").await? == "off" {
        tracing::warn!(
            "the database has fsync off: a crash of its machine loses what was confirmed"
        );
    }
    Ok(())
}

/// A connection that goes back only when it has nothing under way: who gives a statement up closes the connection,
/// or the next statement on it would wait for that one.
pub(crate) struct PooledConnection(Option<Client>);

impl PooledConnection {
    pub(crate) fn client(&mut self) -> &mut Client {
        self.0
            .as_mut()
            .expect("it goes back by value, and only then")
    }

    /// It has nothing under way.
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

/// What an error says of the statement: where the database has answered, it was not done, unless that answer is that
/// the database is going down.
pub(crate) fn failed(error: &tokio_postgres::Error, lost: fn(String) -> RepoError) -> RepoError {
    let going_down = |code: &SqlState| match &code.code()[..2] {
        "08" | "58" | "XX" => true,
        "57" => *code != SqlState::QUERY_CANCELED,
        _ => false,
    };
    match error.as_db_error() {
        Some(said) if !going_down(said.code()) => RepoError::Unavailable(describe(error)),
        _ => lost(describe(error)),
    }
}

/// With what is behind it, which the library leaves away.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// The text in a column, if there is any.
pub(crate) fn text(row: &Row, column: &str) -> Option<String> {
    row.try_get(column).ok().flatten()
}
