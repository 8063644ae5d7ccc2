//! The one codec of lock events, and of the locks that they fold to.

mod event;
mod lock;
mod members;

pub use event::{event_data, read_event};
pub use lock::{lock_state, read_lock_state};
pub use members::InvalidJson;
