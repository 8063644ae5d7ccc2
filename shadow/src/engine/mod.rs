//! How one shadow changes: pure functions without I/O and without a clock.

mod delta;
mod document;
mod request;
mod times;

pub use delta::{delta, has_delta};
pub use document::{Document, Section};
pub(crate) use request::put_token;
pub use request::{Limits, Patch, Rejected, Request, client_token};
pub use times::{MemberTimes, Times};

use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;
