//! Opening of the stores of locks, API keys and webhooks, for the server and for commands.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
#[cfg(feature = "postgres")]
use keywright_adapters::auth::PostgresApiKeys;
#[cfg(feature = "postgres")]
use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::lock_repo::{InMemoryLockRepo, SqliteLockRepo};
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::{PostgresError, PostgresPool, PostgresSettings};
use keywright_adapters::time::TokioTimer;
use tokio::task::spawn_blocking;
#[cfg(feature = "postgres")]
use tokio::time::Instant;

use super::api_key_store::ApiKeyStore;
use super::data_folder;
use super::lock_store::LockStore;
use super::webhook_place::WebhookPlace;
use crate::settings::StoreChoice;

/// The file of the SQLite store, in the data folder.
const LOCKS: &str = "locks.sqlite";

/// How long a starting server waits for its database, and how long a statement of a command may take.
#[cfg(feature = "postgres")]
const DATABASE_TIMEOUT: Duration = Duration::from_secs(60);

/// The pauses between the attempts of a starting server to connect to its database.
#[cfg(feature = "postgres")]
const FIRST_PAUSE: Duration = Duration::from_millis(250);
#[cfg(feature = "postgres")]
const MAX_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Stores {
    pub(crate) locks: LockStore,
    pub(crate) api_keys: ApiKeyStore,
    /// Where webhooks are stored, if they are on.
    pub(crate) webhooks: WebhookPlace,
    /// Where they are, for the banner of the server.
    pub(crate) place: String,
}

impl Stores {
    /// Opens the stores for a server, which waits for a database that does not answer yet. `timeout` bounds one statement.
    ///
    /// # Errors
    /// They cannot be used.
    pub(super) async fn open(
        choice: &StoreChoice,
        data: &Path,
        #[cfg_attr(
            not(feature = "postgres"),
            expect(unused_variables, reason = "only a database has a timeout")
        )]
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        match choice {
            StoreChoice::File => Self::open_files(data).await,
            StoreChoice::Memory => Ok(Self {
                locks: LockStore::Memory(InMemoryLockRepo::new(Arc::new(TokioTimer::default()))),
                api_keys: ApiKeyStore::in_folder(data),
                webhooks: WebhookPlace::Memory,
                place: "memory: all locks are lost when the server ends".into(),
            }),
            #[cfg(feature = "postgres")]
            StoreChoice::Postgres(settings) => {
                let pool = connect_when_up(settings, timeout).await?;
                Ok(Self::in_database(settings, pool))
            }
        }
    }

    /// Opens the stores for a command that may run beside a server. It does not wait for a database. Stores in files are created if
    /// they are missing.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) async fn open_now(choice: &StoreChoice, data: &Path) -> anyhow::Result<Self> {
        match choice {
            StoreChoice::File => {
                data_folder::create(data)?;
                Self::open_files(data).await
            }
            StoreChoice::Memory => {
                bail!("--store memory belongs to the server: no other process can open it")
            }
            #[cfg(feature = "postgres")]
            StoreChoice::Postgres(settings) => {
                let pool = PostgresPool::connect(settings, DATABASE_TIMEOUT).await;
                let pool = pool.map_err(|e| named(settings, &e))?;
                Ok(Self::in_database(settings, pool))
            }
        }
    }

    async fn open_files(data: &Path) -> anyhow::Result<Self> {
        let file = data.join(LOCKS);
        let open = move || SqliteLockRepo::open(&file, Arc::new(TokioTimer::default()));
        let locks = spawn_blocking(open).await??;
        let (journal, synchronous) = locks.durability().await?;
        let synchronous = match synchronous {
            2 => "FULL".to_owned(),
            other => other.to_string(),
        };
        Ok(Self {
            locks: LockStore::Sqlite(locks),
            api_keys: ApiKeyStore::in_folder(data),
            webhooks: WebhookPlace::in_folder(data),
            place: format!(
                "{} (journal_mode={journal}, synchronous={synchronous})",
                data.display()
            ),
        })
    }

    #[cfg(feature = "postgres")]
    fn in_database(settings: &PostgresSettings, pool: PostgresPool) -> Self {
        let timer = Arc::new(TokioTimer::default());
        Self {
            locks: LockStore::Postgres(PostgresLockRepo::new(pool.clone(), timer)),
            api_keys: ApiKeyStore::Postgres(PostgresApiKeys::new(pool.clone())),
            webhooks: WebhookPlace::Postgres(pool),
            place: format!("PostgreSQL at {}", settings.place()),
        }
    }
}

/// Opens the store of locks for a command that adds none.
///
/// # Errors
/// It does not exist, or it cannot be used.
pub(crate) async fn open_existing(choice: &StoreChoice, data: &Path) -> anyhow::Result<LockStore> {
    ensure!(
        !matches!(choice, StoreChoice::File) || data.join(LOCKS).is_file(),
        "there are no locks in {}; name the server's folder with --data, or add a lock",
        data.display()
    );
    Ok(Stores::open_now(choice, data).await?.locks)
}

/// Opens the store of API keys for a command.
///
/// # Errors
/// It cannot be used.
pub(crate) async fn open_api_keys(
    choice: &StoreChoice,
    data: &Path,
) -> anyhow::Result<ApiKeyStore> {
    if !matches!(choice, StoreChoice::File | StoreChoice::Memory) {
        return Ok(Stores::open_now(choice, data).await?.api_keys);
    }
    ensure!(
        data.is_dir(),
        "there is no folder {}; name the server's folder with --data, or start the server once",
        data.display()
    );
    Ok(ApiKeyStore::in_folder(data))
}

#[cfg(feature = "postgres")]
fn named(settings: &PostgresSettings, error: &PostgresError) -> anyhow::Error {
    anyhow::anyhow!("PostgreSQL at {}: {error}", settings.place())
}

#[cfg(feature = "postgres")]
async fn connect_when_up(
    settings: &PostgresSettings,
    timeout: Duration,
) -> anyhow::Result<PostgresPool> {
    let (until, mut pause) = (Instant::now() + DATABASE_TIMEOUT, FIRST_PAUSE);
    loop {
        match PostgresPool::connect(settings, timeout).await {
            Ok(pool) => return Ok(pool),
            Err(error) if error.is_transient() && Instant::now() < until => {
                tracing::warn!(database = settings.place(), %error, "waiting for the database");
            }
            Err(error) => return Err(named(settings, &error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
