//! Shadows over MQTT: the service attached to a broker, and a client of whatever service answers there, AWS IoT's
//! or this one.

mod attached;
mod client;
mod disturb;
mod intake;
mod publisher;
mod topic;

pub use attached::{AttachError, Attached, Options};
pub use client::{Limits, RequestError, ShadowClient};
pub use disturb::{Disturb, Fate, InvalidDisorder, at_random};
pub use topic::{Operation, Topic};
