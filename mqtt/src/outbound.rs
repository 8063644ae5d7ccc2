//! The send queue of one connection. It is dropped with the connection, so that nothing is sent late.

use std::sync::Arc;

use rumqttc::{PubAck, Publish, Request};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of queued PUBLISH packets.
const MAX_QUEUED: usize = 256;

enum Queued {
    Publish(Publish, OwnedSemaphorePermit),
    /// The packet id. Acknowledgements need no limit: the 65,535 packet ids of MQTT bound the unacknowledged messages that the
    /// broker sends. A dropped acknowledgement would block its packet id.
    Acknowledge(u16),
}

/// The sending end. Messages and acknowledgements are sent in the order in which they were queued.
#[derive(Clone)]
pub(crate) struct OutboundSender {
    queue: UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// The receiving end, held by the connection. After it is dropped, the queue accepts nothing.
pub(crate) struct OutboundReceiver {
    queue: UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
}

/// A publish was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotQueued {
    #[error("the queue of messages to the broker is full")]
    Full,
    #[error("the connection to the broker has ended")]
    ConnectionEnded,
}

pub(crate) fn outbound_queue() -> (OutboundSender, OutboundReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(MAX_QUEUED));
    let sender = OutboundSender {
        queue: sender,
        room: room.clone(),
    };
    let receiver = OutboundReceiver {
        queue: receiver,
        room,
    };
    (sender, receiver)
}

impl OutboundSender {
    /// Queues a publish, if there is room.
    pub(crate) fn try_publish(&self, publish: Publish) -> Result<(), NotQueued> {
        let permit = self.room.clone().try_acquire_owned().map_err(|e| match e {
            tokio::sync::TryAcquireError::NoPermits => NotQueued::Full,
            tokio::sync::TryAcquireError::Closed => NotQueued::ConnectionEnded,
        })?;
        self.put(Queued::Publish(publish, permit))
    }

    /// Queues a publish as soon as there is room.
    pub(crate) async fn publish(&self, publish: Publish) -> Result<(), NotQueued> {
        let permit = self.room.clone().acquire_owned().await;
        let permit = permit.map_err(|_| NotQueued::ConnectionEnded)?;
        self.put(Queued::Publish(publish, permit))
    }

    /// Queues an acknowledgement, or drops it if the connection has ended.
    pub(crate) fn acknowledge(&self, packet_id: u16) {
        let _ = self.put(Queued::Acknowledge(packet_id));
    }

    fn put(&self, queued: Queued) -> Result<(), NotQueued> {
        self.queue
            .send(queued)
            .map_err(|_| NotQueued::ConnectionEnded)
    }
}

impl OutboundReceiver {
    /// Waits for the next request. Cancel-safe: no request is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        self.queue.recv().await.map(request)
    }

    /// The next request, if one is queued.
    pub(crate) fn try_next(&mut self) -> Option<Request> {
        self.queue.try_recv().ok().map(request)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Drop for OutboundReceiver {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Turns a queued item into a request for rumqttc. A message leaves the queue here, and counts for the connection's limit of
/// unacknowledged messages from now on.
fn request(queued: Queued) -> Request {
    match queued {
        Queued::Publish(publish, permit) => {
            drop(permit);
            Request::Publish(publish)
        }
        Queued::Acknowledge(packet_id) => Request::PubAck(PubAck::new(packet_id)),
    }
}
