//! Where webhooks are stored: beside API keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "postgres")]
use keywright_adapters::postgres::PostgresPool;
use keywright_adapters::time::TokioTimer;
#[cfg(feature = "postgres")]
use keywright_adapters::webhooks::PostgresWebhookStore;
use keywright_adapters::webhooks::{InMemoryWebhookStore, SecretCipher, SqliteWebhookStore};
use keywright_domain::ports::WebhookStore;

/// The file of the SQLite store, in the data folder.
const WEBHOOKS: &str = "webhooks.sqlite";

pub(crate) enum WebhookPlace {
    File(PathBuf),
    Memory,
    #[cfg(feature = "postgres")]
    Postgres(PostgresPool),
}

/// An open store of webhooks.
pub(crate) struct OpenWebhooks {
    pub(super) store: Arc<dyn WebhookStore>,
    /// The store, if it is a file.
    pub(super) file: Option<SqliteWebhookStore>,
}

impl WebhookPlace {
    pub(super) fn in_folder(data: &Path) -> Self {
        Self::File(data.join(WEBHOOKS))
    }

    /// Opens the store. `cipher` encrypts the secrets in it.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) async fn open(self, cipher: SecretCipher) -> anyhow::Result<OpenWebhooks> {
        let timer = Arc::new(TokioTimer::default());
        let store: Arc<dyn WebhookStore> = match self {
            Self::Memory => Arc::new(InMemoryWebhookStore::new(timer)),
            Self::File(file) => {
                let open = move || SqliteWebhookStore::open(&file, cipher, timer);
                let store = tokio::task::spawn_blocking(open).await??;
                return Ok(OpenWebhooks {
                    store: Arc::new(store.clone()),
                    file: Some(store),
                });
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => Arc::new(PostgresWebhookStore::new(pool, cipher)),
        };
        Ok(OpenWebhooks { store, file: None })
    }
}
