//! The device shadows of things.

#[cfg(feature = "aws")]
mod aws;
pub mod document;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(any(feature = "aws", feature = "memory", feature = "mqtt"))]
mod outcome;
#[cfg(any(feature = "aws", feature = "mqtt"))]
mod throttle_backoff;

#[cfg(feature = "aws")]
pub use aws::{AwsError, AwsSettings, AwsShadow};
#[cfg(feature = "memory")]
pub use memory::InMemoryShadow;
#[cfg(feature = "mqtt")]
pub use mqtt::{MqttShadow, shard_names};

/// The named shadow that keys are written to, unless configured otherwise.
pub const DEFAULT_NAME: &str = "keys";
