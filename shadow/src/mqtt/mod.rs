//! Shadows over MQTT: the service attached to a broker, and a client of whatever service answers there, AWS IoT's
//! or this one.

mod client;
mod disorder;
mod frontend;
mod intake;
mod publisher;
mod topic;

pub use client::{Limits, RequestError, ShadowClient};
pub use disorder::{Delivery, Disorder, InvalidDisorder, at_random};
pub use frontend::{FrontendError, MqttFrontend, Options};
pub use topic::{Operation, Topic};
