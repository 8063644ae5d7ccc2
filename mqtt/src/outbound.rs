//! The receiving end of the send queue of one connection.

use std::sync::Arc;

use rumqttc::{PubAck, Publish, Request};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) enum Queued {
    Publish(Publish, OwnedSemaphorePermit),
    /// The packet id. Acknowledgements need no limit: the 65,535 packet ids of MQTT bound the unacknowledged messages that the
    /// broker sends. A dropped acknowledgement would block its packet id.
    Acknowledge(u16),
}

/// The receiving end, held by the connection. After it is dropped, the queue accepts nothing.
pub(crate) struct OutboundReceiver {
    queue: UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
}

impl OutboundReceiver {
    pub(crate) const fn new(queue: UnboundedReceiver<Queued>, room: Arc<Semaphore>) -> Self {
        Self { queue, room }
    }

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
