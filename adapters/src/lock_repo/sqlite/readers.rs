use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use keywright_domain::ports::RepoError;
use keywright_shadow::durable::OpenError;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::schema::FORMAT;

/// How many readings run at once; who comes then waits.
const CONNECTIONS: usize = 4;

/// Connections that only read. They see what was committed before a reading starts.
#[derive(Clone)]
pub(super) struct Readers {
    free: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let connections: Result<Vec<_>, _> =
            (0..CONNECTIONS).map(|_| FORMAT.open_reader(path)).collect();
        Ok(Self {
            free: Arc::new(Mutex::new(connections?)),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, RepoError> + Send + 'static,
    {
        let closed = |_| RepoError::Unavailable("the store is closed".into());
        let turn = self.turns.clone().acquire_owned().await.map_err(closed)?;
        let free = self.free.clone();
        let reading = spawn_blocking(move || {
            let _turn = turn;
            let conn = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let taken = Taken { conn, free };
            let conn = taken.conn.as_ref();
            let none = || RepoError::Unavailable("no connection is left".into());
            query(conn.ok_or_else(none)?)
        });
        reading
            .await
            .unwrap_or_else(|e| Err(RepoError::Unavailable(e.to_string())))
    }
}

/// A connection that goes back where it came from, also when a query panics.
struct Taken {
    conn: Option<Connection>,
    free: Arc<Mutex<Vec<Connection>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.conn.take());
    }
}
