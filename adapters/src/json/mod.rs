//! The JSON of lock events and of locks.

mod event;
mod lock;
mod members;

pub use event::{EventData, read_event};
pub use lock::{LockState, read_lock_state};
pub use members::InvalidJson;

/// Serializes a value of this module.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value)
        .expect("all values are strings and numbers, and all names are strings")
}
