//! What the service has to say on its broker, in the order in which it must be said.

use std::sync::Arc;

use bytes::Bytes;
use keywright_mqtt::{Connection, MAX_PAYLOAD_BYTES, Message, QoS};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::disorder::{Delivery, Disorder};
use super::topic::Topic;
use crate::message::{Announcement, MessageKind};
use crate::name::ShadowName;
use crate::service::ShadowService;

/// What a request ended in, to be published.
pub(super) struct Done {
    pub(super) request: Message,
    /// What only the one who asks is told; everyone else hears of a change.
    pub(super) answer: Option<(String, Value)>,
}

/// Publishes on one connection.
pub(super) struct Publisher {
    connection: Connection,
    disorder: Option<Disorder>,
}

/// The shadows whose difference is still to be told.
type Missed = Vec<(String, ShadowName)>;

/// When the service was too fast for the broker, what it said is lost, and each difference has to be told again.
fn after_lag(service: &ShadowService, count: u64) -> Missed {
    error!(count, "changes of shadows were not published in time");
    service.pending()
}

impl Publisher {
    pub(super) const fn new(connection: Connection, disorder: Option<Disorder>) -> Self {
        Self {
            connection,
            disorder,
        }
    }

    /// Until the connection takes nothing more.
    ///
    /// What a request changed is published before it is acknowledged: a service that ends in between is given
    /// the request again. What a request has changed waits on the one channel before the request's end is told on the
    /// other, so that telling of those that wait, and then of the end, keeps that order.
    ///
    /// Beside that every difference is told again that there is: what was on the connection that was lost may not have
    /// arrived, and locks that were connected all the time do not ask. Each is told as it is at that moment, and deltas
    /// of the time without a connection are not: an entry that was taken off meanwhile must not come back.
    pub(super) async fn run(
        &self,
        service: &ShadowService,
        announcements: &mut Receiver<Arc<Announcement>>,
        mut done: mpsc::Receiver<Done>,
    ) {
        for _ in 0..announcements.len() {
            let told = match announcements.try_recv() {
                Ok(waiting) => {
                    let but_deltas = |kind| kind != MessageKind::UpdateDelta;
                    self.tell_those(&waiting, but_deltas).await
                }
                Err(_) => Some(()),
            };
            if told.is_none() {
                return;
            }
        }
        let mut missed = service.pending();
        loop {
            let told = tokio::select! {
                announcement = announcements.recv() => match announcement {
                    Ok(announcement) => self.tell(&announcement).await,
                    Err(RecvError::Lagged(count)) => {
                        missed = after_lag(service, count);
                        Some(())
                    }
                    Err(RecvError::Closed) => None,
                },
                Some(done) = done.recv() => {
                    self.end(service, announcements, &mut missed, done).await
                }
                () = std::future::ready(()), if !missed.is_empty() => {
                    let next = missed.pop();
                    match next.and_then(|(thing, shadow)| service.difference(&thing, &shadow)) {
                        Some(difference) => self.tell(&difference).await,
                        None => Some(()),
                    }
                }
            };
            if told.is_none() {
                return;
            }
        }
    }

    async fn end(
        &self,
        service: &ShadowService,
        announcements: &mut Receiver<Arc<Announcement>>,
        missed: &mut Missed,
        done: Done,
    ) -> Option<()> {
        // Those that wait now; what comes meanwhile has its turn later.
        for _ in 0..announcements.len() {
            match announcements.try_recv() {
                Ok(announcement) => self.tell(&announcement).await?,
                Err(TryRecvError::Lagged(count)) => *missed = after_lag(service, count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if let Some((topic, body)) = &done.answer {
            self.publish(topic, body).await?;
        }
        done.request.acknowledge();
        Some(())
    }

    async fn tell(&self, announcement: &Announcement) -> Option<()> {
        self.tell_those(announcement, |_| true).await
    }

    async fn tell_those(
        &self,
        announcement: &Announcement,
        wanted: fn(MessageKind) -> bool,
    ) -> Option<()> {
        let Announcement { thing, shadow, .. } = announcement;
        for message in announcement.messages().filter(|m| wanted(m.kind)) {
            let topic = Topic::text(thing, shadow, message.kind.topic_suffix());
            self.publish(&topic, &message.body()).await?;
        }
        Some(())
    }

    async fn publish(&self, topic: &str, body: &Value) -> Option<()> {
        let payload = Bytes::from(body.to_string());
        if payload.len() > MAX_PAYLOAD_BYTES {
            // The metadata of a document may be many times as large as its state.
            let bytes = payload.len();
            warn!(
                topic,
                bytes, "a message is too large for MQTT and is not published"
            );
            return Some(());
        }
        let fate = match &self.disorder {
            Some(disorder) => disorder(topic, &payload),
            None => Delivery::NORMAL,
        };
        if fate.after.is_zero() {
            for _ in 0..fate.copies {
                let sent = self
                    .connection
                    .publish(topic, QoS::AtLeastOnce, payload.clone());
                sent.await.ok()?;
            }
            return Some(());
        }
        let (connection, topic) = (self.connection.clone(), topic.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(fate.after).await;
            for _ in 0..fate.copies {
                let sent = connection.publish(&topic, QoS::AtLeastOnce, payload.clone());
                let _ = sent.await;
            }
        });
        Some(())
    }
}
