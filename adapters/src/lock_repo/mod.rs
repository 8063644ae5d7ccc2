//! Where locks are kept.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod columns;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod leases;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use keywright_domain::model::LockVersion;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use keywright_domain::model::{Lock, RecordedEvent, Revision};
use keywright_domain::ports::ImportError;

#[cfg(feature = "memory")]
pub use memory::InMemoryLockRepo;
#[cfg(feature = "postgres")]
pub use postgres::PostgresLockRepo;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLockRepo;

/// The version of an imported event that goes on from whatever its lock has.
pub const NEXT_VERSION: LockVersion = LockVersion(0);

/// The lock after one more imported event, which gets its version if it has none yet.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn follow(
    known: Option<columns::LockRow>,
    event: &mut RecordedEvent,
) -> Result<columns::LockRow, ImportError> {
    if event.version == NEXT_VERSION {
        let first = LockVersion(1);
        event.version = known.as_ref().map_or(first, |row| row.lock.version.next());
    }
    let refused = |why| ImportError::NotAStream {
        lock: event.lock,
        at: event.version,
        why,
    };
    match known {
        Some(mut row) => {
            row.lock.apply(event).map_err(refused)?;
            Ok(row)
        }
        None => Ok(columns::LockRow {
            lock: Lock::create(event).map_err(refused)?,
            revision: Revision(0),
            shadow_version: None,
        }),
    }
}
