//! Where locks and API keys are kept: in files of this machine, or in a database that replicas share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "postgres")]
use keywright_adapters::auth::PostgresApiKeys;
use keywright_adapters::auth::{
    ApiKeyRecord, LastUsed, read_api_keys, read_last_used, write_api_keys, write_last_used,
};
#[cfg(feature = "postgres")]
use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::lock_repo::{InMemoryLockRepo, SqliteLockRepo};
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::{PostgresError, PostgresPool, PostgresSettings};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{LockId, LockSnapshot, RecordedEvent};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError};
use tokio::task::spawn_blocking;
#[cfg(feature = "postgres")]
use tokio::time::Instant;

use super::Error;
use crate::settings::StoreChoice;

/// The names of files in the folder of data.
const LOCKS: &str = "locks.sqlite";
const API_KEYS: &str = "api-keys.json";
const API_KEYS_USED: &str = "api-keys-used.json";

/// How long a server that starts waits for its database, and the pauses between its tries.
#[cfg(feature = "postgres")]
const PATIENCE: Duration = Duration::from_secs(60);
#[cfg(feature = "postgres")]
const FIRST_PAUSE: Duration = Duration::from_millis(250);
#[cfg(feature = "postgres")]
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The locks.
#[derive(Clone)]
pub(crate) enum Store {
    File(SqliteLockRepo),
    Memory(InMemoryLockRepo),
    #[cfg(feature = "postgres")]
    Postgres(PostgresLockRepo),
}

/// What is kept where.
pub(crate) struct Stores {
    pub(crate) locks: Store,
    pub(crate) api_keys: ApiKeyStore,
    /// For the person who starts the server.
    pub(crate) place: String,
}

impl Stores {
    /// For a server, which waits for a database that does not answer yet. `timeout`: what a statement may take.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) async fn open(
        choice: &StoreChoice,
        data: &Path,
        #[cfg_attr(
            not(feature = "postgres"),
            expect(unused_variables, reason = "files need no patience")
        )]
        timeout: Duration,
    ) -> Result<Self, Error> {
        match choice {
            StoreChoice::File => Self::open_files(data).await,
            StoreChoice::Memory => Ok(Self {
                locks: Store::Memory(InMemoryLockRepo::new(Arc::new(TokioTimer::default()))),
                api_keys: ApiKeyStore::of_files(data),
                place: "memory: all locks are gone when it ends".into(),
            }),
            #[cfg(feature = "postgres")]
            StoreChoice::Postgres(settings) => {
                Self::of_database(settings, wait_for(settings, timeout).await?)
            }
        }
    }

    /// For a command, beside a server that may be running.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) async fn open_now(choice: &StoreChoice, data: &Path) -> Result<Self, Error> {
        match choice {
            StoreChoice::File => {
                super::make_private_folder(data)?;
                Self::open_files(data).await
            }
            StoreChoice::Memory => {
                Err("--store memory is the server's own: nothing else reaches its locks".into())
            }
            #[cfg(feature = "postgres")]
            StoreChoice::Postgres(settings) => {
                let database = PostgresPool::connect(settings, PATIENCE).await;
                Self::of_database(settings, database.map_err(|e| at(settings, &e))?)
            }
        }
    }

    async fn open_files(data: &Path) -> Result<Self, Error> {
        let file = data.join(LOCKS);
        let open = move || SqliteLockRepo::open(&file, Arc::new(TokioTimer::default()));
        let locks = spawn_blocking(open).await??;
        let (journal, synchronous) = locks.durability().await?;
        let synchronous = match synchronous {
            2 => "FULL".to_owned(),
            other => other.to_string(),
        };
        Ok(Self {
            locks: Store::File(locks),
            api_keys: ApiKeyStore::of_files(data),
            place: format!(
                "{} (journal_mode={journal}, synchronous={synchronous})",
                data.display()
            ),
        })
    }

    #[cfg(feature = "postgres")]
    fn of_database(settings: &PostgresSettings, database: PostgresPool) -> Result<Self, Error> {
        Ok(Self {
            locks: Store::Postgres(PostgresLockRepo::new(
                database.clone(),
                Arc::new(TokioTimer::default()),
            )),
            api_keys: ApiKeyStore::Postgres(PostgresApiKeys::new(database)),
            place: format!("PostgreSQL at {}", settings.place()),
        })
    }
}

/// Whether there is a store already, for commands that only read.
pub(crate) fn is_there(choice: &StoreChoice, data: &Path) -> bool {
    match choice {
        StoreChoice::File => data.join(LOCKS).is_file(),
        StoreChoice::Memory => true,
        #[cfg(feature = "postgres")]
        StoreChoice::Postgres(_) => true,
    }
}

#[cfg(feature = "postgres")]
fn at(settings: &PostgresSettings, error: &PostgresError) -> String {
    format!("PostgreSQL at {}: {error}", settings.place())
}

#[cfg(feature = "postgres")]
async fn wait_for(settings: &PostgresSettings, timeout: Duration) -> Result<PostgresPool, Error> {
    let (until, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
    loop {
        match PostgresPool::connect(settings, timeout).await {
            Ok(database) => return Ok(database),
            Err(error) if error.is_transient() && Instant::now() < until => {
                tracing::warn!(database = settings.place(), %error, "waiting for the database");
            }
            Err(error) => return Err(at(settings, &error).into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

impl Store {
    pub(crate) fn locks(&self) -> Arc<dyn LockRepo> {
        match self {
            Self::File(store) => Arc::new(store.clone()),
            Self::Memory(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    pub(crate) fn history(&self) -> Arc<dyn LockHistory> {
        match self {
            Self::File(store) => Arc::new(store.clone()),
            Self::Memory(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// # Errors
    /// See [`LockRepo::load`].
    pub(crate) async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.locks().load(lock).await
    }

    /// Takes in events, all of them or none; see the stores.
    ///
    /// # Errors
    /// What `events` says, or why one of them was not taken.
    pub(crate) async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send + 'static,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send + 'static,
    {
        match self {
            Self::File(store) => store.import_all(events).await,
            Self::Memory(store) => {
                let events: Vec<RecordedEvent> = events.collect::<Result<_, E>>()?;
                Ok(store.import(events).await?)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.import_all(events).await,
        }
    }

    /// Waits until the store can save nothing more before it is opened again.
    pub(crate) async fn ended(&self) {
        match self {
            Self::File(store) => store.ended().await,
            Self::Memory(_) => std::future::pending().await,
            // A database that goes away is used again when it is back.
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => std::future::pending().await,
        }
    }
}

/// The API keys.
#[derive(Clone)]
pub(crate) enum ApiKeyStore {
    File {
        keys: std::path::PathBuf,
        used: std::path::PathBuf,
    },
    #[cfg(feature = "postgres")]
    Postgres(PostgresApiKeys),
}

impl ApiKeyStore {
    pub(crate) fn of_files(data: &Path) -> Self {
        Self::File {
            keys: data.join(API_KEYS),
            used: data.join(API_KEYS_USED),
        }
    }

    /// # Errors
    /// They cannot be read.
    pub(crate) async fn read(&self) -> Result<Vec<ApiKeyRecord>, Error> {
        match self {
            Self::File { keys, .. } => Ok(read_api_keys(keys)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.read().await?),
        }
    }

    /// Puts all of these in the place of those that were read.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) async fn write(&self, records: &[ApiKeyRecord]) -> Result<(), Error> {
        match self {
            Self::File { keys, .. } => Ok(write_api_keys(keys, records)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.put(records).await?),
        }
    }

    /// # Errors
    /// It cannot be read.
    pub(crate) async fn last_used(&self) -> Result<LastUsed, Error> {
        match self {
            Self::File { used, .. } => Ok(read_last_used(used)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.last_used().await?),
        }
    }

    /// # Errors
    /// It cannot be written.
    pub(crate) async fn note_used(&self, news: LastUsed) -> Result<(), Error> {
        match self {
            Self::File { used, .. } => {
                let path = used.clone();
                let note = move || {
                    let mut all = read_last_used(&path)?;
                    all.extend(news);
                    write_last_used(&path, &all)
                };
                Ok(spawn_blocking(note).await??)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(keys) => Ok(keys.note_used(&news).await?),
        }
    }
}
