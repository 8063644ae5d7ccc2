//! A Device Shadow service: the engine as pure functions, and a service in this process over it.
//!
//! It behaves as AWS IoT's does where that is known: versions that fence updates, recursive merge,
//! `null` removes, deltas that carry every difference after each accepted update, tombstones that keep
//! counting. `tests/vectors.rs` says how sure each of its cases is.
#![warn(missing_docs)]

#[cfg(feature = "durable")]
pub mod durable;
pub mod engine;
mod name;
mod service;
#[cfg(feature = "durable")]
mod store;

#[cfg(feature = "durable")]
pub use durable::OpenError;
pub use engine::{Limits, Rejected};
pub use name::{InvalidName, ShadowName, check_thing_name};
pub use service::{Accepted, Message, MessageKind, Record, ServiceConfig, ShadowService};
