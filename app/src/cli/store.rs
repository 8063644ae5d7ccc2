//! Where locks and API keys are kept.

use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::PostgresSettings;

use super::layers;
use super::values::positive;
use crate::settings::StoreChoice;

const HEADING: &str = "Store";

/// Of the server, and of the commands that look into its store.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StoreArgs {
    /// Where locks and API keys are kept: sqlite, in files in the folder of data, or a PostgreSQL database that
    /// several servers may share, as in postgres://keywright@db.example/keywright. Over a network that wants TLS,
    /// unless the URL ends in ?sslmode=disable. memory is for measuring: the sandbox's locks are gone when it ends [default: sqlite].
    #[arg(long, value_name = "URL", help_heading = HEADING)]
    store: Option<String>,
    /// The file with the password of the database's user.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    store_password_file: Option<PathBuf>,
    /// The certificates that the database's is traced back to [default: the system's].
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    store_ca: Option<PathBuf>,
    /// How many connections to the database there are at most [default: 16].
    #[arg(long, value_name = "N", value_parser = positive, help_heading = HEADING)]
    store_connections: Option<usize>,
}

impl StoreArgs {
    /// With what stands in variables and in the file of settings, for commands that read nothing else there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn with_lower_layers(self) -> Result<Self, String> {
        let path = |given: Option<PathBuf>, key| match given {
            Some(path) => Ok(Some(path)),
            None => layers::below(key).map(|found| found.map(PathBuf::from)),
        };
        Ok(Self {
            store: match self.store {
                Some(url) => Some(url),
                None => layers::below("store")?,
            },
            store_password_file: path(self.store_password_file, "store-password-file")?,
            store_ca: path(self.store_ca, "store-ca")?,
            store_connections: self.store_connections,
        })
    }

    /// # Errors
    /// What is said makes no sense; the text says what to change.
    pub(super) fn choose(&self) -> Result<StoreChoice, String> {
        let url = self.store.as_deref().unwrap_or("sqlite");
        if url == "sqlite" || url == "memory" {
            let of_databases = self.store_password_file.is_some() || self.store_ca.is_some();
            if of_databases || self.store_connections.is_some() {
                return Err(
                    "--store-password-file, --store-ca and --store-connections are about a database; \
                     name one with --store"
                        .into(),
                );
            }
            return Ok(match url {
                "memory" => StoreChoice::Memory,
                _ => StoreChoice::File,
            });
        }
        self.database(url)
    }

    #[cfg(feature = "postgres")]
    fn database(&self, url: &str) -> Result<StoreChoice, String> {
        let mut settings = PostgresSettings::new(url).map_err(|why| format!("--store: {why}"))?;
        if let Some(file) = &self.store_password_file {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|e| {
                format!(
                    "cannot use {} for --store-password-file: {e}",
                    file.display()
                )
            })?;
            settings.set_password(text.trim_end_matches(['\r', '\n']));
        }
        if let Some(file) = &self.store_ca {
            settings.set_ca(file);
        }
        settings
            .check_files()
            .map_err(|why| format!("--store-ca: {why}"))?;
        if let Some(connections) = self.store_connections {
            settings.set_connections(connections);
        }
        Ok(StoreChoice::Postgres(Box::new(settings)))
    }

    #[cfg(not(feature = "postgres"))]
    fn database(&self, _: &str) -> Result<StoreChoice, String> {
        Err(
            "--store: this program knows sqlite and memory only; it was built without the feature postgres"
                .into(),
        )
    }
}
