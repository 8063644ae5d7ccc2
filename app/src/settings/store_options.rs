//! Options of the store of locks and API keys.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::PostgresSettings;

use super::layers;
use super::values::{help_with_default, positive};
use crate::settings::StoreChoice;

/// The values of --store that are not URLs. The first one is the default.
const SQLITE: &str = "sqlite";
const MEMORY: &str = "memory";

const STORE_HELP: &str = "Where locks and API keys are stored: sqlite, in files in the data folder; or the URL of a PostgreSQL \
     database, which several servers may share, such as postgres://keywright@db.example/keywright. A database on another machine \
     must use TLS, unless the URL ends in ?sslmode=disable. memory is for measurements: the locks of the sandbox are lost when the \
     server ends";

/// Where locks and API keys are stored. The server has these options, and so do the commands that open its store.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    #[arg(long, value_name = "URL", help = help_with_default(STORE_HELP, SQLITE))]
    store: Option<String>,
    /// The file with the password of the database user.
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// The file with the certificate authorities of the database, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    store_ca: Option<PathBuf>,
    #[arg(long, value_name = "N", value_parser = positive, help = connections_help())]
    store_connections: Option<usize>,
}

fn connections_help() -> String {
    let help = "The highest number of connections to the database";
    #[cfg(feature = "postgres")]
    {
        help_with_default(help, PostgresSettings::DEFAULT_CONNECTIONS)
    }
    #[cfg(not(feature = "postgres"))]
    {
        help.to_owned()
    }
}

impl StoreArgs {
    /// These options, completed from environment variables and the settings file, for commands that read no other settings.
    ///
    /// # Errors
    /// The settings file cannot be read.
    pub(super) fn with_lower_layers(self) -> anyhow::Result<Self> {
        let path = |given: Option<PathBuf>, key| match given {
            Some(path) => Ok(Some(path)),
            None => layers::lower_value(key).map(|found| found.map(PathBuf::from)),
        };
        Ok(Self {
            store: match self.store {
                Some(url) => Some(url),
                None => layers::lower_value("store")?,
            },
            store_password_file: path(self.store_password_file, "store-password-file")?,
            store_ca: path(self.store_ca, "store-ca")?,
            store_connections: self.store_connections,
        })
    }

    /// # Errors
    /// The options are invalid or contradict each other, or a file cannot be used; the text names the option.
    pub(super) fn choose(&self) -> anyhow::Result<StoreChoice> {
        let url = self.store.as_deref().unwrap_or(SQLITE);
        if url == SQLITE || url == MEMORY {
            let of_databases = self.store_password_file.is_some() || self.store_ca.is_some();
            if of_databases || self.store_connections.is_some() {
                bail!(
                    "--store-password-file, --store-ca and --store-connections are for a database; name one with --store"
                );
            }
            return Ok(match url {
                MEMORY => StoreChoice::Memory,
                _ => StoreChoice::File,
            });
        }
        self.database(url)
    }

    #[cfg(feature = "postgres")]
    fn database(&self, url: &str) -> anyhow::Result<StoreChoice> {
        use anyhow::{Context, anyhow};

        let mut settings = PostgresSettings::new(url).map_err(|why| anyhow!("--store: {why}"))?;
        if let Some(file) = &self.store_password_file {
            let text = std::fs::read_to_string(file).with_context(|| {
                format!("cannot use {} for --store-password-file", file.display())
            })?;
            settings.set_password(text.trim_end_matches(['\r', '\n']));
        }
        if let Some(file) = &self.store_ca {
            settings.set_ca(file);
        }
        settings
            .check_files()
            .map_err(|why| anyhow!("--store-ca: {why}"))?;
        if let Some(connections) = self.store_connections {
            settings.set_connections(connections);
        }
        Ok(StoreChoice::Postgres(Box::new(settings)))
    }

    #[cfg(not(feature = "postgres"))]
    fn database(&self, _: &str) -> anyhow::Result<StoreChoice> {
        bail!(
            "--store: this program knows only sqlite and memory, because it was built without the feature postgres"
        )
    }
}
