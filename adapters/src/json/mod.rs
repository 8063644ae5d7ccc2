//! The JSON of events, their causes, locks, writes and idempotency records.

mod cause;
mod event;
mod lock;
mod members;
mod write;

pub use cause::{CauseData, read_cause};
pub use event::{EventData, read_event};
pub use lock::{LockState, read_lock_state};
pub use members::InvalidJson;
pub use write::{IdempotencyData, WriteData, read_idempotency_record, read_write};

/// Serializes a value of this module.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value)
        .expect("all values are strings and numbers, and all names are strings")
}
