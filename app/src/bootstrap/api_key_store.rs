//! Where API keys are stored: in files in the data folder, or in the database of locks.

use std::path::{Path, PathBuf};

#[cfg(feature = "postgres")]
use keywright_adapters::auth::PostgresApiKeys;
use keywright_adapters::auth::{
    ApiKeyRecord, LastUsed, read_api_keys, read_last_used, write_api_keys, write_last_used,
};
use tokio::task::spawn_blocking;

/// Files in the data folder.
const API_KEYS: &str = "api-keys.json";
const API_KEYS_USED: &str = "api-keys-used.json";

#[derive(Clone)]
pub(crate) enum ApiKeyStore {
    File {
        keys: PathBuf,
        last_used: PathBuf,
    },
    #[cfg(feature = "postgres")]
    Postgres(PostgresApiKeys),
}

impl ApiKeyStore {
    pub(super) fn in_folder(data: &Path) -> Self {
        Self::File {
            keys: data.join(API_KEYS),
            last_used: data.join(API_KEYS_USED),
        }
    }

    /// # Errors
    /// The keys cannot be read.
    pub(crate) async fn read(&self) -> anyhow::Result<Vec<ApiKeyRecord>> {
        match self {
            Self::File { keys, .. } => Ok(read_api_keys(keys)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.read().await?),
        }
    }

    /// Replaces all keys.
    ///
    /// # Errors
    /// The keys cannot be written.
    pub(crate) async fn write(&self, records: &[ApiKeyRecord]) -> anyhow::Result<()> {
        match self {
            Self::File { keys, .. } => Ok(write_api_keys(keys, records)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.put(records).await?),
        }
    }

    /// # Errors
    /// The times cannot be read.
    pub(crate) async fn last_used(&self) -> anyhow::Result<LastUsed> {
        match self {
            Self::File { last_used, .. } => Ok(read_last_used(last_used)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.last_used().await?),
        }
    }

    /// Records when keys were last used. Keys that are not in `used` keep their times.
    ///
    /// # Errors
    /// The times cannot be written.
    pub(super) async fn record_last_used(&self, used: LastUsed) -> anyhow::Result<()> {
        match self {
            Self::File { last_used, .. } => {
                let path = last_used.clone();
                let record = move || {
                    let mut all = read_last_used(&path)?;
                    all.extend(used);
                    write_last_used(&path, &all)
                };
                Ok(spawn_blocking(record).await??)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.note_used(&used).await?),
        }
    }
}
