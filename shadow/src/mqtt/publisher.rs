//! Publishes the messages of the service on its broker, in the order that MQTT clients rely on.

use std::sync::Arc;

use bytes::Bytes;
use keywright_mqtt::{Connection, MAX_PAYLOAD_BYTES, Message, NotSent, QoS};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::message_faults::{Delivery, Disorder};
use super::topic::Topic;
use crate::message::{Announcement, MessageKind};
use crate::name::ShadowKey;
use crate::service::ShadowService;

/// A request that has been carried out and is not acknowledged yet.
pub(super) struct FinishedRequest {
    pub(super) request: Message,
    /// The message for the requester alone. Messages for all subscribers are announcements.
    pub(super) answer: Option<Answer>,
}

/// The answer to a request, published for its requester alone.
pub(super) struct Answer {
    pub(super) topic: String,
    pub(super) body: Value,
}

/// Publishes announcements and answers on one connection, and acknowledges requests.
pub(super) struct Publisher {
    connection: Connection,
    disorder: Option<Disorder>,
}

/// The shadows whose delta is to be published again.
pub(super) type DeltasToRepeat = Vec<ShadowKey>;

/// Announcements are lost when the publisher lags behind the service. Then every delta is published again.
fn after_lag(service: &ShadowService, count: u64) -> DeltasToRepeat {
    error!(
        count,
        "announcements were lost because the publisher lagged behind; all deltas are published again"
    );
    service.shadows_with_delta()
}

impl Publisher {
    pub(super) const fn new(connection: Connection, disorder: Option<Disorder>) -> Self {
        Self {
            connection,
            disorder,
        }
    }

    /// Publishes the messages other than deltas that were announced while there was no connection (at most as many as the
    /// channel holds), and returns the shadows whose delta is to be published again.
    ///
    /// All shadows with a delta are returned: the last deltas on the lost connection may not have arrived, and devices that stayed
    /// connected do not request them. Deltas that were announced without a connection are not published, because they may
    /// contain attributes that have been removed since.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) async fn catch_up(
        &self,
        service: &ShadowService,
        announcements: &mut Receiver<Arc<Announcement>>,
    ) -> Result<DeltasToRepeat, NotSent> {
        for _ in 0..announcements.len() {
            if let Ok(announcement) = announcements.try_recv() {
                let except_deltas = |kind| kind != MessageKind::UpdateDelta;
                self.publish_messages_of(&announcement, except_deltas)
                    .await?;
            }
        }
        Ok(service.shadows_with_delta())
    }

    /// Publishes until the connection ends (an error) or the service ends (`Ok`).
    ///
    /// The messages of a change are published before its request is acknowledged: if the process ends in between, the broker
    /// delivers the request again. A worker announces a change before it sends the finished request, so publishing all queued
    /// announcements first keeps that order.
    pub(super) async fn run(
        &self,
        service: &ShadowService,
        announcements: &mut Receiver<Arc<Announcement>>,
        mut finished: mpsc::Receiver<FinishedRequest>,
        mut deltas_to_repeat: DeltasToRepeat,
    ) -> Result<(), NotSent> {
        loop {
            tokio::select! {
                announcement = announcements.recv() => match announcement {
                    Ok(announcement) => self.publish_announcement(&announcement).await?,
                    Err(RecvError::Lagged(count)) => deltas_to_repeat = after_lag(service, count),
                    Err(RecvError::Closed) => return Ok(()),
                },
                Some(finished) = finished.recv() => {
                    self.finish(service, announcements, &mut deltas_to_repeat, finished).await?;
                }
                () = std::future::ready(()), if !deltas_to_repeat.is_empty() => {
                    let next = deltas_to_repeat.pop();
                    let delta = next.and_then(|key| service.delta_announcement(&key));
                    if let Some(delta) = delta {
                        self.publish_announcement(&delta).await?;
                    }
                }
            }
        }
    }

    /// Publishes the queued announcements and the answer, and acknowledges the request.
    async fn finish(
        &self,
        service: &ShadowService,
        announcements: &mut Receiver<Arc<Announcement>>,
        deltas_to_repeat: &mut DeltasToRepeat,
        finished: FinishedRequest,
    ) -> Result<(), NotSent> {
        // Only those that are queued now: later ones do not belong to this request.
        for _ in 0..announcements.len() {
            match announcements.try_recv() {
                Ok(announcement) => self.publish_announcement(&announcement).await?,
                Err(TryRecvError::Lagged(count)) => *deltas_to_repeat = after_lag(service, count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if let Some(answer) = &finished.answer {
            self.publish(&answer.topic, &answer.body).await?;
        }
        finished.request.acknowledge();
        Ok(())
    }

    async fn publish_announcement(&self, announcement: &Announcement) -> Result<(), NotSent> {
        self.publish_messages_of(announcement, |_| true).await
    }

    async fn publish_messages_of(
        &self,
        announcement: &Announcement,
        wanted: fn(MessageKind) -> bool,
    ) -> Result<(), NotSent> {
        let Announcement { thing, shadow, .. } = announcement;
        for message in announcement.messages().filter(|m| wanted(m.kind)) {
            let topic = Topic::text(thing, shadow, message.kind.topic_suffix());
            self.publish(&topic, &message.body()).await?;
        }
        Ok(())
    }

    /// # Errors
    /// The connection is over.
    async fn publish(&self, topic: &str, body: &Value) -> Result<(), NotSent> {
        let payload = Bytes::from(body.to_string());
        if payload.len() > MAX_PAYLOAD_BYTES {
            // Possible although documents are bounded: their metadata may be many times as large as their state.
            let bytes = payload.len();
            warn!(
                topic,
                bytes, "a message is larger than the payload limit and is not published"
            );
            return Ok(());
        }
        let delivery = match &self.disorder {
            Some(disorder) => disorder(topic, &payload),
            None => Delivery::NORMAL,
        };
        if delivery.delay.is_zero() {
            return publish_copies(&self.connection, topic, &payload, delivery.copies).await;
        }
        let (connection, topic) = (self.connection.clone(), topic.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(delivery.delay).await;
            // It fails if the connection has ended.
            let _ = publish_copies(&connection, &topic, &payload, delivery.copies).await;
        });
        Ok(())
    }
}

async fn publish_copies(
    connection: &Connection,
    topic: &str,
    payload: &Bytes,
    copies: u8,
) -> Result<(), NotSent> {
    for _ in 0..copies {
        let sent = connection.publish(topic, QoS::AtLeastOnce, payload.clone());
        sent.await?;
    }
    Ok(())
}
