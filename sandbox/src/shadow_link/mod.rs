//! The connection of virtual locks to their shadows: in this process, or over a broker.

#[cfg(feature = "mqtt")]
mod broker;
mod wake_signal;

use std::sync::Arc;

#[cfg(feature = "mqtt")]
use keywright_mqtt::Broker;
use keywright_shadow::{Announcement, MessageKind, ShadowName, ShadowService};
use serde_json::{Map, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::lock_error::LockError;
pub(crate) use wake_signal::Signal;

/// Where the shadows of virtual locks are: the service or the broker, and the name of the shadow.
#[derive(Clone)]
pub enum Shadows {
    /// A shadow service in this process.
    InProcess(ShadowService, ShadowName),
    /// A shadow service on a broker. All locks share two connections.
    #[cfg(feature = "mqtt")]
    Broker(Broker, ShadowName),
}

/// Reads and updates the shadows of locks. Clones share the connection.
#[derive(Clone)]
pub(crate) enum Link {
    InProcess(ShadowService, ShadowName),
    #[cfg(feature = "mqtt")]
    Broker(broker::Requests),
}

/// Receives the deltas of all locks.
pub(crate) enum Deltas {
    InProcess(Receiver<Arc<Announcement>>, ShadowName),
    #[cfg(feature = "mqtt")]
    Broker(broker::Deltas),
}

impl Shadows {
    /// Connects, and subscribes to deltas from now on.
    pub(crate) fn connect(self) -> (Link, Deltas) {
        match self {
            Self::InProcess(service, shadow) => {
                let deltas = Deltas::InProcess(service.subscribe_all(), shadow.clone());
                (Link::InProcess(service, shadow), deltas)
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(broker, shadow) => {
                let (requests, deltas) = broker::connect(broker, shadow);
                (Link::Broker(requests), Deltas::Broker(deltas))
            }
        }
    }
}

impl Deltas {
    /// Waits for the next signal. `None`: there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Signal> {
        match self {
            Self::InProcess(announcements, shadow) => loop {
                match announcements.recv().await {
                    Ok(announcement) => {
                        let has_delta = announcement.message(MessageKind::UpdateDelta).is_some();
                        if has_delta && announcement.shadow == *shadow {
                            return Some(Signal::One(announcement.thing.clone()));
                        }
                    }
                    Err(RecvError::Lagged(_)) => return Some(Signal::All),
                    Err(RecvError::Closed) => return None,
                }
            },
            #[cfg(feature = "mqtt")]
            Self::Broker(deltas) => deltas.next().await,
        }
    }
}

impl Link {
    /// Reads `desired` of a lock's shadow; empty if there is no shadow.
    pub(crate) async fn desired(&self, thing: &str) -> Result<Map<String, Value>, LockError> {
        match self {
            Self::InProcess(service, shadow) => {
                let document = service.document(thing, shadow);
                Ok(document
                    .map(|d| d.desired.state.clone())
                    .unwrap_or_default())
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(requests) => Ok(requests.desired(thing).await?),
        }
    }

    /// Updates a lock's shadow.
    pub(crate) async fn update(&self, thing: &str, body: &Value) -> Result<(), LockError> {
        match self {
            Self::InProcess(service, shadow) => {
                let body = body.to_string();
                service.update(thing, shadow, body.as_bytes()).await?;
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(requests) => requests.update(thing, body).await?,
        }
        Ok(())
    }
}
