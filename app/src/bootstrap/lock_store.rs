//! The store of locks that the settings choose.

use std::sync::Arc;

#[cfg(feature = "postgres")]
use keywright_adapters::lock_repo::PostgresLockRepo;
use keywright_adapters::lock_repo::{InMemoryLockRepo, SqliteLockRepo};
use keywright_domain::model::RecordedEvent;
use keywright_domain::ports::{ImportError, LockHistory, LockRepo};

#[derive(Clone)]
pub(crate) enum LockStore {
    Sqlite(SqliteLockRepo),
    Memory(InMemoryLockRepo),
    #[cfg(feature = "postgres")]
    Postgres(PostgresLockRepo),
}

impl LockStore {
    pub(crate) fn repo(&self) -> Arc<dyn LockRepo> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Memory(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    pub(crate) fn history(&self) -> Arc<dyn LockHistory> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Memory(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Imports all events, or none. SQLite and PostgreSQL read them as they are needed; memory collects them first.
    ///
    /// # Errors
    /// The first error in `events`, or why an event was not imported.
    pub(crate) async fn import_all<E>(
        &self,
        events: impl Iterator<Item = Result<RecordedEvent, E>> + Send + 'static,
    ) -> Result<(), E>
    where
        E: From<ImportError> + Send + 'static,
    {
        match self {
            Self::Sqlite(store) => store.import_all(events).await,
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
            Self::Sqlite(store) => store.ended().await,
            Self::Memory(_) => std::future::pending().await,
            // A database that becomes unreachable is used again when it is back.
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => std::future::pending().await,
        }
    }
}
