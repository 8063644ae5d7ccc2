//! Stores of locks: in memory, in a SQLite file, and in a PostgreSQL database.

#[cfg(any(feature = "memory", feature = "postgres", feature = "sqlite"))]
mod lock_row;
#[cfg(feature = "memory")]
mod memory;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod observed_leases;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod row_mapping;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(any(feature = "memory", feature = "postgres", feature = "sqlite"))]
pub use lock_row::{NEXT_VERSION, apply_imported};
#[cfg(feature = "memory")]
pub use memory::InMemoryLockRepo;
#[cfg(feature = "postgres")]
pub use postgres::PostgresLockRepo;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLockRepo;
