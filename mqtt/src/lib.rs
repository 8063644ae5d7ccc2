//! A connection to an MQTT 3.1.1 broker, renewed as a whole when it is lost.
//!
//! What a connection had in its queues goes with it: nothing is sent late, and whoever waits for an answer
//! hears at once that none will come. A connection counts as up when the broker has granted every
//! subscription. It knows nothing of shadows or keys.
#![warn(missing_docs)]

mod broker;
#[cfg(feature = "mosquitto")]
pub mod mosquitto;
mod outbound;
mod packets;
mod session;
mod transport;

pub use broker::{Broker, BrokerUrl, InvalidBroker, TlsFiles};
pub use session::{Connection, Handler, Message, NotSent, Session, SessionOptions};

/// How surely a message is delivered: at most once, or at least once.
pub use rumqttc::QoS;

/// The largest payload that is published, in bytes: AWS IoT's bound.
pub const MAX_PAYLOAD_BYTES: usize = 128 * 1024;

/// The topic and the head of a packet, which come on top of its payload.
const MAX_PACKET_OVERHEAD: usize = 1024;
