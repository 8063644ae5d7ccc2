//! How one shadow changes: pure functions without I/O and without a clock.

mod delta;
mod document_update;
mod metadata;
mod request;

pub use delta::{delta, has_delta};
pub use document_update::{Document, Section};
pub use metadata::{Metadata, ObjectMetadata};
pub(crate) use request::put_token;
pub use request::{Limits, Patch, Rejected, Request, client_token};

use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;
