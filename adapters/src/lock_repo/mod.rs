//! Where locks are kept.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "memory")]
pub use memory::InMemoryLockRepo;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLockRepo;
