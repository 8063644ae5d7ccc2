use rumqttc::{Publish, QoS};

use crate::connection::Connection;

/// A received message.
pub struct Message {
    publish: Publish,
    connection: Connection,
}

impl Message {
    /// `connection` is that on which the message arrived.
    pub(crate) const fn new(publish: Publish, connection: Connection) -> Self {
        Self {
            publish,
            connection,
        }
    }

    /// The topic to which the message was published.
    pub fn topic(&self) -> &str {
        &self.publish.topic
    }

    /// The message's content.
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// Whether the broker had stored the message as a retained one before this client subscribed.
    pub const fn retained(&self) -> bool {
        self.publish.retain
    }

    /// Whether the message came at QoS 1. If it is not acknowledged, a persistent session receives it again after the next
    /// connect.
    pub fn at_least_once(&self) -> bool {
        self.publish.qos == QoS::AtLeastOnce
    }

    /// Queues the acknowledgement behind all messages that this client has published on the same connection. Does nothing for
    /// QoS 0, or if that connection has ended; a persistent session then receives the message again.
    pub fn acknowledge(self) {
        if self.at_least_once() {
            self.connection.acknowledge(self.publish.pkid);
        }
    }
}

/// Callbacks of a session. They run on the session's task and must not block.
pub trait Handler: Send + 'static {
    /// The broker has granted all subscriptions of this connection. `connection` counts from 1 in each session.
    fn connected(&mut self, connection: u64);
    /// This connection, or the attempt to open it, has ended. Messages that were queued for it and not sent are dropped.
    fn disconnected(&mut self, connection: u64, reason: &str);
    /// A message arrived, possibly before [`connected`](Self::connected).
    fn message_received(&mut self, message: Message);
}
