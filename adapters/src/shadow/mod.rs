//! Device shadows: over the AWS SDK, over MQTT, and of an in-process service.

#[cfg(feature = "aws")]
mod aws;
pub mod document_json;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mqtt")]
mod mqtt;
pub mod status_code;
#[cfg(any(feature = "aws", feature = "mqtt"))]
mod throttle_backoff;

#[cfg(feature = "aws")]
pub use aws::{AwsError, AwsSettings, AwsShadow};
#[cfg(feature = "memory")]
pub use memory::InMemoryShadow;
#[cfg(feature = "mqtt")]
pub use mqtt::{MqttShadow, shard_names};

/// The default name of the shadow that keys are written to.
pub const DEFAULT_NAME: &str = "keys";
