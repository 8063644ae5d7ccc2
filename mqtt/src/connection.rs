use std::sync::Arc;

use bytes::Bytes;
use rumqttc::{Publish, QoS};

use crate::outbound::{NotQueued, OutboundSender};
use crate::{MAX_PAYLOAD_BYTES, MAX_TOPIC_BYTES};

/// A message was certainly not sent; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: {0}")]
pub struct NotSent(pub String);

/// A connection with all its subscriptions. Messages that are published after it has ended are not sent.
#[derive(Clone)]
pub struct Connection {
    number: u64,
    outbound: OutboundSender,
}

/// Whether a session has a connection.
#[derive(Clone)]
pub(crate) enum ConnectionState {
    Up(Connection),
    /// With the reason.
    Down(Arc<str>),
}

impl Connection {
    pub(crate) const fn new(number: u64, outbound: OutboundSender) -> Self {
        Self { number, outbound }
    }

    pub(crate) const fn outbound(&self) -> &OutboundSender {
        &self.outbound
    }

    /// The number of the connection within its session, counted from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Publishes a message if the queue has room.
    ///
    /// # Errors
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`], the topic is too long, the connection has ended, or its queue is full.
    /// Without an error the message may have been sent.
    pub fn try_publish(&self, topic: &str, qos: QoS, payload: Vec<u8>) -> Result<(), NotSent> {
        check_size(topic, payload.len())?;
        let queued = self.outbound.try_publish(Publish::new(topic, qos, payload));
        queued.map_err(NotSent::from)
    }

    /// Publishes a message as soon as the queue has room.
    ///
    /// # Errors
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`], the topic is too long, or the connection has ended.
    pub async fn publish(&self, topic: &str, qos: QoS, payload: Bytes) -> Result<(), NotSent> {
        check_size(topic, payload.len())?;
        let mut publish = Publish::new(topic, qos, Vec::new());
        publish.payload = payload;
        Ok(self.outbound.publish(publish).await?)
    }
}

impl From<NotQueued> for NotSent {
    fn from(error: NotQueued) -> Self {
        Self(error.to_string())
    }
}

/// Rejects a packet that is too large: the codec's error would end the connection.
fn check_size(topic: &str, payload: usize) -> Result<(), NotSent> {
    if payload > MAX_PAYLOAD_BYTES {
        return Err(NotSent(format!(
            "the payload has {payload} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )));
    }
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(NotSent(format!(
            "the topic has {} bytes; at most {MAX_TOPIC_BYTES} are allowed",
            topic.len()
        )));
    }
    Ok(())
}
