//! The one codec of lock events, and of the locks that they fold to.

mod event;
mod lock;
mod members;

pub use event::{EventData, read_event};
pub use lock::{LockState, read_lock_state};
pub use members::InvalidJson;

/// Some JSON as text. What is written here has nothing that JSON cannot hold.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers, under names that are texts")
}
