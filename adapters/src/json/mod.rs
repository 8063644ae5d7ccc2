//! JSON of the domain's values: one codec, for stores, HTTP and imports alike.

mod event;

pub use event::{InvalidEvent, event_data, read_event};
