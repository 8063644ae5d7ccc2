//! A client of an MQTT 3.1.1 broker whose connection is replaced as a whole when it is lost.
//!
//! Each connection has its own queue, which is dropped with the connection: nothing is sent late, and a caller that waits for an
//! answer learns at once that none will come. A connection counts as up once the broker has granted every subscription.
//!
//! ```no_run
//! use keywright_mqtt::{Broker, Handler, Message, QoS, Session, SessionOptions, TlsFiles};
//! use std::time::Duration;
//!
//! struct Printer;
//!
//! impl Handler for Printer {
//!     fn connected(&mut self, _connection: u64) {}
//!     fn disconnected(&mut self, _connection: u64, reason: &str) {
//!         println!("not connected: {reason}");
//!     }
//!     fn message_received(&mut self, message: Message) {
//!         println!("{}: {} bytes", message.topic(), message.payload().len());
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::new("mqtt://localhost".parse()?, &TlsFiles::default())?;
//! let options = SessionOptions {
//!     client_id: "printer".into(),
//!     filters: vec!["doors/#".into()],
//!     persistent_session: false,
//!     manual_acks: false,
//! };
//! let session = Session::start(broker, options, Printer);
//! let connection = session.connection_within(Duration::from_secs(5)).await?;
//! connection.publish("doors/front", QoS::AtLeastOnce, "open".into()).await?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod broker;
mod connection;
mod connection_error;
mod message;
#[cfg(feature = "mosquitto")]
pub mod mosquitto;
mod outbound;
mod packets;
mod reconnect;
mod session;
mod session_options;
mod transport;

pub use broker::{Broker, BrokerUrl, InvalidBroker, TlsFiles};
pub use connection::{Connection, NotSent};
pub use message::{Handler, Message};
pub use session::Session;
pub use session_options::SessionOptions;

/// The quality of service of a message: at most once, or at least once.
pub use rumqttc::QoS;

/// The size limit of a published payload, in bytes: AWS IoT's limit.
pub const MAX_PAYLOAD_BYTES: usize = 128 * 1024;

/// How many bytes a packet may have besides its payload: its topic and header.
const MAX_PACKET_OVERHEAD: usize = 1024;

/// The size limit of a topic, in bytes. The topics of AWS IoT have at most 256.
const MAX_TOPIC_BYTES: usize = 512;
