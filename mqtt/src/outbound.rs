//! What waits to be sent on one connection. It is dropped with the connection, so that nothing is sent late.

use std::sync::Arc;

use rumqttc::{PubAck, Publish, Request};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Publishes that may wait.
const MAX_WAITING: usize = 256;

enum Queued {
    Publish(Publish, OwnedSemaphorePermit),
    /// Acknowledgements are not counted: there are at most as many as messages that the broker has sent and that are
    /// not acknowledged, which the 65,535 packet ids of MQTT bound. One that was left out would use up a packet id.
    Acknowledge(u16),
}

/// The sending end. What is sent keeps its order, acknowledgements included.
#[derive(Clone)]
pub(crate) struct OutboundQueue {
    queue: UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// The end at the connection. Once it is dropped, nothing is accepted any more.
pub(crate) struct Outbound {
    queue: UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
}

/// Why a publish was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    Full,
    ConnectionOver,
}

/// The two ends of a new queue.
pub(crate) fn outbound() -> (OutboundQueue, Outbound) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(MAX_WAITING));
    let sender = OutboundQueue {
        queue: sender,
        room: room.clone(),
    };
    let receiver = Outbound {
        queue: receiver,
        room,
    };
    (sender, receiver)
}

impl OutboundQueue {
    /// Queues a publish, if there is room.
    pub(crate) fn try_publish(&self, publish: Publish) -> Result<(), NotQueued> {
        let permit = self.room.clone().try_acquire_owned().map_err(|e| match e {
            tokio::sync::TryAcquireError::NoPermits => NotQueued::Full,
            tokio::sync::TryAcquireError::Closed => NotQueued::ConnectionOver,
        })?;
        self.put(Queued::Publish(publish, permit))
    }

    /// Queues a publish as soon as there is room.
    pub(crate) async fn publish(&self, publish: Publish) -> Result<(), NotQueued> {
        let permit = self.room.clone().acquire_owned().await;
        let permit = permit.map_err(|_| NotQueued::ConnectionOver)?;
        self.put(Queued::Publish(publish, permit))
    }

    /// Queues an acknowledgement. On a connection that is over it is dropped.
    pub(crate) fn acknowledge(&self, packet_id: u16) {
        let _ = self.put(Queued::Acknowledge(packet_id));
    }

    fn put(&self, queued: Queued) -> Result<(), NotQueued> {
        self.queue
            .send(queued)
            .map_err(|_| NotQueued::ConnectionOver)
    }
}

impl Outbound {
    /// Waits for the next request. Nothing is lost when the returned future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        self.queue.recv().await.map(request)
    }

    /// The next request, if there is one.
    pub(crate) fn try_next(&mut self) -> Option<Request> {
        self.queue.try_recv().ok().map(request)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// The permit of a publish is given back here: from now on the connection's own bounds hold it.
fn request(queued: Queued) -> Request {
    match queued {
        Queued::Publish(publish, permit) => {
            drop(permit);
            Request::Publish(publish)
        }
        Queued::Acknowledge(packet_id) => Request::PubAck(PubAck::new(packet_id)),
    }
}
