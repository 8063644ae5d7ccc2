//! Streams of the reports of locks.

mod http;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mqtt")]
mod mqtt;
mod polling;

pub use http::{DeliveryError, HttpReports};
#[cfg(feature = "memory")]
pub use memory::InMemoryReports;
#[cfg(feature = "mqtt")]
pub use mqtt::MqttReports;
pub use polling::PollingReports;
