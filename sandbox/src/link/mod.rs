//! How virtual locks reach their shadows: in this process, or over a broker.

#[cfg(feature = "mqtt")]
mod broker;

use std::sync::Arc;

#[cfg(feature = "mqtt")]
use keywright_mqtt::Broker;
use keywright_shadow::{Announcement, MessageKind, ShadowName, ShadowService};
use serde_json::{Map, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Where the shadows of virtual locks are.
#[derive(Clone)]
pub enum Shadows {
    /// In this process.
    InProcess(ShadowService, ShadowName),
    /// Behind a broker; all locks share two connections.
    #[cfg(feature = "mqtt")]
    Broker(Broker, ShadowName),
}

/// The locks' side of their shadows. Clones share it.
#[derive(Clone)]
pub(crate) enum Link {
    InProcess(ShadowService, ShadowName),
    #[cfg(feature = "mqtt")]
    Broker(broker::Requests),
}

/// Whose shadow has something new.
pub(crate) enum News {
    Of(String),
    /// Perhaps everyone's: some were missed.
    OfAll,
}

pub(crate) enum Deltas {
    InProcess(Receiver<Arc<Announcement>>, ShadowName),
    #[cfg(feature = "mqtt")]
    Broker(broker::Deltas),
}

impl Shadows {
    /// The link, and what is heard over it from now on.
    pub(crate) fn connect(self) -> (Link, Deltas) {
        match self {
            Self::InProcess(service, shadow) => {
                let deltas = Deltas::InProcess(service.subscribe_all(), shadow.clone());
                (Link::InProcess(service, shadow), deltas)
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(at, shadow) => {
                let (requests, deltas) = broker::connect(at, shadow);
                (Link::Broker(requests), Deltas::Broker(deltas))
            }
        }
    }
}

impl Deltas {
    /// `None`: nothing more will be heard.
    pub(crate) async fn next(&mut self) -> Option<News> {
        match self {
            Self::InProcess(announcements, shadow) => loop {
                match announcements.recv().await {
                    Ok(told) => {
                        let differs = told.message(MessageKind::UpdateDelta).is_some();
                        if differs && told.shadow == *shadow {
                            return Some(News::Of(told.thing.clone()));
                        }
                    }
                    Err(RecvError::Lagged(_)) => return Some(News::OfAll),
                    Err(RecvError::Closed) => return None,
                }
            },
            #[cfg(feature = "mqtt")]
            Self::Broker(deltas) => deltas.next().await,
        }
    }
}

impl Link {
    /// What is wanted of a lock; nothing, where it has no shadow.
    pub(crate) async fn desired(&self, thing: &str) -> Result<Map<String, Value>, String> {
        match self {
            Self::InProcess(service, shadow) => {
                let document = service.document(thing, shadow);
                Ok(document
                    .map(|d| d.desired.state.clone())
                    .unwrap_or_default())
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(requests) => requests.desired(thing).await,
        }
    }

    /// Reports what a lock has to say.
    pub(crate) async fn update(&self, thing: &str, body: &Value) -> Result<(), String> {
        match self {
            Self::InProcess(service, shadow) => {
                let body = body.to_string();
                let accepted = service.update(thing, shadow, body.as_bytes()).await;
                accepted.map(drop).map_err(|rejected| rejected.message)
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(requests) => requests.update(thing, body).await,
        }
    }
}
