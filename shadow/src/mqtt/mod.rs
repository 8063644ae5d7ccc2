//! Shadows over MQTT: the service on a broker ([`MqttFrontend`]), and a client ([`ShadowClient`]) of this service or of AWS IoT.

mod client;
mod frontend;
mod message_faults;
mod probe;
mod publisher;
mod request_limiter;
mod requests;
mod topic;

pub use client::{ClientLimits, RequestError, ShadowClient};
pub use frontend::{FrontendError, MqttFrontend, Options};
pub use message_faults::{Delivery, Disorder, InvalidDisorder, parse_disorder};
pub use topic::{Operation, Topic};
