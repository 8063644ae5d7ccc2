//! Settings of the connections to a PostgreSQL database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::PostgresError;
use crate::error_text::text_with_sources;
use crate::tls::{self, InvalidCaFile};

/// The time for making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection counts as lost when it has not answered for this time.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    config: Config,
    ca: Option<PathBuf>,
    connections: usize,
}

/// Why a URL of a database cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// It cannot be parsed.
    #[error("{0}; an example is postgres://keywright@db.example/keywright")]
    Syntax(String),
    /// It contains a password.
    #[error("a URL is no place for a password, because others can read it; put it in a file")]
    Password,
    /// It names no host.
    #[error("the URL names no host")]
    NoHost,
}

impl PostgresSettings {
    /// The maximum number of connections, unless it is set.
    pub const DEFAULT_CONNECTIONS: usize = 16;

    /// Reads a URL such as `postgres://keywright@db.example/keywright`. Over a network, TLS is required unless the URL has
    /// another `sslmode`, and the server's certificate is checked. There are at most 16 connections.
    ///
    /// # Errors
    /// See [`InvalidPostgresUrl`].
    pub fn new(url: &str) -> Result<Self, InvalidPostgresUrl> {
        let parsed: Result<Config, _> = url.parse();
        let mut config = parsed.map_err(|e| InvalidPostgresUrl::Syntax(text_with_sources(&e)))?;
        if config.get_password().is_some() {
            return Err(InvalidPostgresUrl::Password);
        }
        if config.get_hosts().is_empty() {
            return Err(InvalidPostgresUrl::NoHost);
        }
        let is_local = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
            Host::Unix(_) => true,
        });
        if !is_local && !url.contains("sslmode=") {
            config.ssl_mode(SslMode::Require);
        }
        // Otherwise a connection to a standby, to which a host name may lead for a while, would be kept, because reads succeed.
        if !url.contains("target_session_attrs=") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config
            .application_name("keywright")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(SILENCE_TIMEOUT)
            .keepalives_idle(SILENCE_TIMEOUT);
        Ok(Self {
            config,
            ca: None,
            connections: Self::DEFAULT_CONNECTIONS,
        })
    }

    /// Sets the password.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// Trusts the certificate authorities in this PEM file instead of the system's.
    pub fn set_ca(&mut self, file: &Path) {
        self.ca = Some(file.to_owned());
    }

    /// Reads the files that the settings name, to check them.
    ///
    /// # Errors
    /// See [`InvalidCaFile`].
    pub fn check_files(&self) -> Result<(), InvalidCaFile> {
        match &self.ca {
            Some(ca) => tls::client_config(Some(ca)).map(drop),
            None => Ok(()),
        }
    }

    /// Sets the maximum number of connections.
    pub const fn set_connections(&mut self, connections: usize) {
        self.connections = connections;
    }

    /// Host, port and database, without credentials.
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

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, PostgresError> {
        let tls = tls::client_config(self.ca.as_deref());
        let tls = tls.map_err(|e| PostgresError::Unfit(e.to_string()))?;
        Ok(MakeRustlsConnect::new(tls))
    }

    /// `timeout` bounds each statement. The database enforces it too, so that an abandoned statement does not block others.
    pub(super) fn pool(&self, timeout: Duration) -> Result<Pool, PostgresError> {
        let manager_config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(self.config.clone(), self.tls()?, manager_config);
        let millis = timeout.as_millis();
        // A save waits for the lock's row and then reads its new content. At a stricter isolation level, which may be the
        // database's default, it would fail instead.
        let session = format!(
            "SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}; \
             SET default_transaction_isolation = 'read committed'"
        );
        let configure = Hook::async_fn(move |client: &mut ClientWrapper, _| {
            let session = session.clone();
            Box::pin(async move {
                let configured = client.batch_execute(&session).await;
                configured.map_err(HookError::Backend)
            })
        });
        Pool::builder(manager)
            .max_size(self.connections)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(SILENCE_TIMEOUT))
            .wait_timeout(Some(timeout))
            .recycle_timeout(Some(SILENCE_TIMEOUT))
            .post_create(configure)
            .build()
            .map_err(|e| PostgresError::Unfit(e.to_string()))
    }
}
