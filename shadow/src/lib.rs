//! A Device Shadow service that behaves like AWS IoT's.
//!
//! - [`engine`]: how one shadow changes, as pure functions.
//! - [`ShadowService`]: all shadows of a process, in memory or (feature `durable`) in an SQLite file.
//! - `rest` (feature `rest`): the HTTP API of AWS IoT's data plane.
//! - `mqtt` (feature `mqtt`): the service on any MQTT broker, and a client of such a service or of AWS IoT.
//!
//! As far as AWS IoT's behaviour is known, this service behaves in the same way: updates can be conditional on a version, patches
//! are merged recursively, `null` removes a member, each accepted update publishes the whole delta, and the version of a
//! deleted shadow is remembered. `tests/vectors` lists the known cases, each with how certain it is.
//!
//! ```
//! use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ShadowService::in_memory(ServiceConfig {
//!     clock: Arc::new(|| 1_700_000_000),
//!     limits: Limits::default(),
//! });
//! let update = br#"{ "state": { "desired": { "color": "red" } } }"#;
//! let accepted = service.update("lamp", &ShadowName::Classic, update).await?;
//! assert_eq!(accepted.version, 1);
//! let lamp = service.get("lamp", &ShadowName::Classic, b"").await?;
//! assert_eq!(lamp.body()["state"]["delta"]["color"], "red");
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod change;
pub mod engine;
mod message;
#[cfg(feature = "mqtt")]
pub mod mqtt;
mod name;
mod record;
mod requests_per_second;
#[cfg(feature = "rest")]
pub mod rest;
mod service;
#[cfg(feature = "durable")]
mod store;

pub use engine::{Limits, Rejected};
#[cfg(feature = "durable")]
pub use keywright_sqlite::OpenError;
pub use message::{Accepted, Announcement, Message, MessageKind};
pub use name::{InvalidName, ShadowKey, ShadowName, check_thing_name};
pub use record::Record;
pub use service::{ServiceConfig, ShadowService};
