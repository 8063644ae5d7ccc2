//! A Device Shadow service: the engine as pure functions, a service over it, and what stands in front of that:
//! REST as AWS IoT's data plane has it (feature `rest`), and any MQTT broker (feature `mqtt`).
//!
//! It behaves as AWS IoT's does where that is known: versions that fence updates, recursive merge,
//! `null` removes, deltas that carry every difference after each accepted update, tombstones that keep
//! counting. `tests/vectors` says how sure each of its cases is.
#![warn(missing_docs)]

pub mod engine;
mod message;
#[cfg(feature = "mqtt")]
pub mod mqtt;
mod name;
#[cfg(feature = "rest")]
pub mod rest;
mod service;
#[cfg(feature = "durable")]
mod store;
mod throttle;

pub use engine::{Limits, Rejected};
#[cfg(feature = "durable")]
pub use keywright_sqlite::OpenError;
pub use message::{Accepted, Announcement, Message, MessageKind};
pub use name::{InvalidName, ShadowName, check_thing_name};
pub use service::{Record, ServiceConfig, ShadowService};
