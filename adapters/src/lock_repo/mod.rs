//! Where locks are kept.

#[cfg(feature = "memory")]
mod memory;

#[cfg(feature = "memory")]
pub use memory::InMemoryLockRepo;
