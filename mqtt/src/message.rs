use rumqttc::{Publish, QoS};

use crate::outbound::OutboundQueue;

/// A received message.
pub struct Message {
    publish: Publish,
    outbound: OutboundQueue,
}

impl Message {
    /// `outbound` is the queue of the connection on which the message arrived.
    pub(crate) const fn new(publish: Publish, outbound: OutboundQueue) -> Self {
        Self { publish, outbound }
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

    /// Whether the message came at QoS 1: the broker delivers it again until it is acknowledged.
    pub fn at_least_once(&self) -> bool {
        self.publish.qos == QoS::AtLeastOnce
    }

    /// Acknowledges the message, after everything that was published before on the same connection. Does nothing if that connection is
    /// over; a persistent session then receives the message again.
    pub fn acknowledge(self) {
        if self.at_least_once() {
            self.outbound.acknowledge(self.publish.pkid);
        }
    }
}

/// Receives the events of a session. Called from the session's own task, so implementations must not block.
pub trait Handler: Send + 'static {
    /// The connection with this number has all its subscriptions.
    fn up(&mut self, connection: u64);
    /// The connection with this number, or the attempt to make it, has ended. Everything in its queue is lost.
    fn down(&mut self, connection: u64, reason: &str);
    /// A message arrived, possibly before `up`.
    fn message(&mut self, message: Message);
}
