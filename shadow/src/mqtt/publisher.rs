//! What the service has to say on its broker, in the order in which it must be said.

use std::sync::Arc;

use bytes::Bytes;
use keywright_mqtt::{Connection, LARGEST_PAYLOAD, Message, QoS};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::disturb::{Disturb, Fate};
use super::topic::Topic;
use crate::service::{self, ShadowService};

/// What a request ended in, to be published.
pub(super) struct Done {
    pub(super) request: Message,
    /// What only the one who asks is told; everyone else hears of a change.
    pub(super) answer: Option<(String, Value)>,
}

/// Publishes on one connection.
pub(super) struct Publisher {
    connection: Connection,
    disturb: Option<Disturb>,
}

/// What a subscriber of the service hears when it lagged too far behind.
fn warn_of_lag(missed: u64) {
    error!(missed, "messages of shadows were not published in time");
}

impl Publisher {
    pub(super) const fn new(connection: Connection, disturb: Option<Disturb>) -> Self {
        Self {
            connection,
            disturb,
        }
    }

    /// Publishes what was changed while there was no connection, and then every difference there is: what was on the
    /// connection that was lost may not have arrived, and locks that were connected all the time do not ask.
    pub(super) async fn catch_up(
        &self,
        service: &ShadowService,
        messages: &mut Receiver<Arc<service::Message>>,
    ) -> Option<()> {
        self.tell_those_waiting(messages).await?;
        for delta in service.pending_deltas() {
            self.tell(&delta).await?;
        }
        Some(())
    }

    /// Until the connection takes nothing more.
    ///
    /// What a request changed is published before it is acknowledged: a service that ends in between is given
    /// the request again. What a request has changed waits on the one channel before the request's end is told on the
    /// other, so that telling of those that wait, and then of the end, keeps that order.
    pub(super) async fn run(
        &self,
        messages: &mut Receiver<Arc<service::Message>>,
        mut done: mpsc::Receiver<Done>,
    ) {
        loop {
            let told = tokio::select! {
                message = messages.recv() => match message {
                    Ok(message) => self.tell(&message).await,
                    Err(RecvError::Lagged(missed)) => {
                        warn_of_lag(missed);
                        Some(())
                    }
                    Err(RecvError::Closed) => None,
                },
                Some(done) = done.recv() => self.end(messages, &done).await,
            };
            if told.is_none() {
                return;
            }
        }
    }

    async fn end(&self, messages: &mut Receiver<Arc<service::Message>>, done: &Done) -> Option<()> {
        self.tell_those_waiting(messages).await?;
        if let Some((topic, body)) = &done.answer {
            self.publish(topic, body).await?;
        }
        done.request.acknowledge().await;
        Some(())
    }

    /// Those that wait now; what comes meanwhile has its turn later.
    async fn tell_those_waiting(
        &self,
        messages: &mut Receiver<Arc<service::Message>>,
    ) -> Option<()> {
        for _ in 0..messages.len() {
            match messages.try_recv() {
                Ok(message) => self.tell(&message).await?,
                Err(TryRecvError::Lagged(missed)) => warn_of_lag(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(())
    }

    async fn tell(&self, message: &service::Message) -> Option<()> {
        let suffix = message.kind.topic_suffix();
        let topic = Topic::text(&message.thing, &message.shadow, suffix);
        self.publish(&topic, &message.body).await
    }

    async fn publish(&self, topic: &str, body: &Value) -> Option<()> {
        let payload = Bytes::from(body.to_string());
        if payload.len() > LARGEST_PAYLOAD {
            // The metadata of a document may be many times as large as its state.
            let bytes = payload.len();
            warn!(
                topic,
                bytes, "a message is too large for MQTT and is not published"
            );
            return Some(());
        }
        let fate = match &self.disturb {
            Some(disturb) => disturb(topic, &payload),
            None => Fate::UNDISTURBED,
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
