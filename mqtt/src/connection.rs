use std::sync::Arc;

use bytes::Bytes;
use rumqttc::{Publish, QoS};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::outbound::{OutboundReceiver, Queued};
use crate::{MAX_PAYLOAD_BYTES, MAX_TOPIC_BYTES};

/// The maximum number of queued PUBLISH packets.
const MAX_QUEUED: usize = 256;

/// A message was certainly not sent; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: {0}")]
pub struct NotSent(pub String);

/// A connection with all its subscriptions. Messages that are published after it has ended are not sent. Messages and
/// acknowledgements are sent in the order in which they were queued.
#[derive(Clone)]
pub struct Connection {
    number: u64,
    queue: UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// Whether a session has a connection.
#[derive(Clone)]
pub(crate) enum ConnectionState {
    Up(Connection),
    /// With the reason.
    Down(Arc<str>),
}

impl Connection {
    /// A connection, and the receiving end of its queue. The queue is dropped with the connection, so that nothing is sent late.
    pub(crate) fn new(number: u64) -> (Self, OutboundReceiver) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MAX_QUEUED));
        let receiver = OutboundReceiver::new(receiver, room.clone());
        let connection = Self {
            number,
            queue,
            room,
        };
        (connection, receiver)
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
        let permit = self.room.clone().try_acquire_owned();
        let permit = permit.map_err(|error| match error {
            TryAcquireError::NoPermits => {
                NotSent("the queue of messages to the broker is full".into())
            }
            TryAcquireError::Closed => ended(),
        })?;
        self.put(Queued::Publish(Publish::new(topic, qos, payload), permit))
    }

    /// Publishes a message as soon as the queue has room.
    ///
    /// # Errors
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`], the topic is too long, or the connection has ended.
    pub async fn publish(&self, topic: &str, qos: QoS, payload: Bytes) -> Result<(), NotSent> {
        check_size(topic, payload.len())?;
        let mut publish = Publish::new(topic, qos, Vec::new());
        publish.payload = payload;
        let permit = self.room.clone().acquire_owned().await;
        self.put(Queued::Publish(publish, permit.map_err(|_| ended())?))
    }

    /// Queues an acknowledgement, or drops it if the connection has ended.
    pub(crate) fn acknowledge(&self, packet_id: u16) {
        let _ = self.put(Queued::Acknowledge(packet_id));
    }

    fn put(&self, queued: Queued) -> Result<(), NotSent> {
        self.queue.send(queued).map_err(|_| ended())
    }
}

fn ended() -> NotSent {
    NotSent("the connection to the broker has ended".into())
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
