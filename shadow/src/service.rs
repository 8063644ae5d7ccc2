use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::engine::{Document, Limits, Rejected, Request, client_token, put_token};
use crate::name::{FullName, ShadowName, check_thing_name};

/// How a service behaves.
#[derive(Clone)]
pub struct ServiceConfig {
    /// The time in epoch seconds, which stamps metadata and messages.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What a document may be at most.
    pub limits: Limits,
}

/// What the service tells everyone after a request was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// An update was accepted.
    UpdateAccepted,
    /// Every difference after an accepted update; only where there is one.
    UpdateDelta,
    /// The document before and after an accepted update.
    UpdateDocuments,
    /// A shadow was deleted.
    DeleteAccepted,
}

impl MessageKind {
    /// The end of its MQTT topic.
    pub const fn topic_suffix(self) -> &'static str {
        match self {
            Self::UpdateAccepted => "update/accepted",
            Self::UpdateDelta => "update/delta",
            Self::UpdateDocuments => "update/documents",
            Self::DeleteAccepted => "delete/accepted",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The thing.
    pub thing: String,
    /// Its shadow.
    pub shadow: ShadowName,
    /// What it tells.
    pub kind: MessageKind,
    /// The shadow's version.
    pub version: u64,
    /// The message itself.
    pub body: Value,
}

/// The answer to a request that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The answer.
    pub body: Value,
    /// The shadow's version.
    pub version: u64,
}

/// A Device Shadow service in this process. Clones share the shadows.
#[derive(Clone)]
pub struct ShadowService {
    shadows: Arc<Mutex<BTreeMap<(String, ShadowName), Record>>>,
    messages: broadcast::Sender<Arc<Message>>,
    config: ServiceConfig,
}

/// What is kept of a shadow.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// It exists.
    Live(Document),
    /// It was deleted; a shadow that is made again goes on from this version.
    Tombstone {
        /// The version, one above the deleted document's.
        version: u64,
        /// When, in epoch seconds.
        deleted_at: u64,
    },
}

/// How long a deleted shadow's version is remembered, in seconds.
const TOMBSTONE_SECS: u64 = 48 * 3600;

/// How many messages a subscriber may lag behind.
const BACKLOG: usize = 4096;

impl ShadowService {
    /// Shadows that are gone with the process.
    pub fn in_memory(config: ServiceConfig) -> Self {
        Self {
            shadows: Arc::default(),
            messages: broadcast::channel(BACKLOG).0,
            config,
        }
    }

    /// Updates a shadow, which is made where it is missing. Messages go out in the order of versions.
    ///
    /// # Errors
    /// The request is invalid (400, 413, 415) or expects another version (409).
    #[expect(clippy::unused_async, reason = "a durable store waits here")]
    pub async fn update(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        let (now, limits) = ((self.config.clock)(), &self.config.limits);
        check(thing, shadow)?;
        let request = Request::parse(body, limits)?;
        let mut shadows = self.shadows();
        let record = shadows.get(&(thing.to_owned(), shadow.clone()));
        let base = match record {
            Some(Record::Live(document)) => document.clone(),
            Some(Record::Tombstone {
                version,
                deleted_at,
            }) if now.saturating_sub(*deleted_at) < TOMBSTONE_SECS => Document {
                version: *version,
                ..Document::default()
            },
            _ => Document::default(),
        };
        let existed = matches!(record, Some(Record::Live(_)));
        let next = base.update(&request, limits, now)?;
        let accepted = request.accepted_body(next.version, now);
        let token = request.client_token.as_deref();
        let publish = |kind, body| self.publish(thing, shadow, kind, next.version, body);
        publish(MessageKind::UpdateAccepted, accepted.clone());
        if let Some(mut delta) = next.delta_body(now) {
            put_token(&mut delta, token);
            publish(MessageKind::UpdateDelta, delta);
        }
        let previous = if existed {
            base.stored_body()
        } else {
            Value::Null
        };
        let mut documents =
            json!({ "previous": previous, "current": next.stored_body(), "timestamp": now });
        put_token(&mut documents, token);
        publish(MessageKind::UpdateDocuments, documents);
        let version = next.version;
        shadows.insert((thing.to_owned(), shadow.clone()), Record::Live(next));
        Ok(Accepted {
            body: accepted,
            version,
        })
    }

    /// Reads a shadow. The body is empty, or an object that may have a `clientToken`.
    ///
    /// # Errors
    /// The request is invalid (400, 415) or there is no such shadow (404).
    #[expect(clippy::unused_async, reason = "a durable store waits here")]
    pub async fn get(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let token = client_token(body)?;
        let Some(document) = self.document(thing, shadow) else {
            return Err(missing(thing, shadow, token));
        };
        let mut body = document.get_body((self.config.clock)());
        put_token(&mut body, token.as_deref());
        Ok(Accepted {
            body,
            version: document.version,
        })
    }

    /// Deletes a shadow. Its count goes on for 48 h, one further for the deletion itself.
    ///
    /// # Errors
    /// The request is invalid (400, 415) or there is no such shadow (404).
    #[expect(clippy::unused_async, reason = "a durable store waits here")]
    pub async fn delete(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let token = client_token(body)?;
        let now = (self.config.clock)();
        let mut shadows = self.shadows();
        let record = shadows.get_mut(&(thing.to_owned(), shadow.clone()));
        let Some((record, version)) = record.and_then(|record| match record {
            Record::Live(Document { version, .. }) => {
                let version = *version;
                Some((record, version))
            }
            Record::Tombstone { .. } => None,
        }) else {
            return Err(missing(thing, shadow, token));
        };
        *record = Record::Tombstone {
            version: version + 1,
            deleted_at: now,
        };
        let mut body = json!({ "version": version, "timestamp": now });
        put_token(&mut body, token.as_deref());
        self.publish(
            thing,
            shadow,
            MessageKind::DeleteAccepted,
            version,
            body.clone(),
        );
        Ok(Accepted { body, version })
    }

    /// The names of a thing's named shadows, in order.
    pub fn named_shadows(&self, thing: &str) -> Vec<String> {
        let shadows = self.shadows();
        let live = shadows
            .iter()
            .filter(|((t, _), r)| t == thing && matches!(r, Record::Live(_)));
        live.filter_map(|((_, shadow), _)| match shadow {
            ShadowName::Named(name) => Some(name.clone()),
            ShadowName::Classic => None,
        })
        .collect()
    }

    /// What is stored, if the shadow exists.
    pub fn document(&self, thing: &str, shadow: &ShadowName) -> Option<Document> {
        match self.shadows().get(&(thing.to_owned(), shadow.clone())) {
            Some(Record::Live(document)) => Some(document.clone()),
            _ => None,
        }
    }

    /// Puts a record in its place as it is, without a message: to take over what another store held.
    pub fn put(&self, thing: &str, shadow: &ShadowName, record: Record) {
        self.shadows()
            .insert((thing.to_owned(), shadow.clone()), record);
    }

    /// Messages of all shadows from now on. A subscriber that lags far behind misses some, is told so, and
    /// has to get what it needs.
    pub fn subscribe_all(&self) -> broadcast::Receiver<Arc<Message>> {
        self.messages.subscribe()
    }

    fn publish(
        &self,
        thing: &str,
        shadow: &ShadowName,
        kind: MessageKind,
        version: u64,
        body: Value,
    ) {
        let (thing, shadow) = (thing.to_owned(), shadow.clone());
        // That nobody listens is no error.
        let _ = self.messages.send(Arc::new(Message {
            thing,
            shadow,
            kind,
            version,
            body,
        }));
    }

    fn shadows(&self) -> MutexGuard<'_, BTreeMap<(String, ShadowName), Record>> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(thing: &str, shadow: &ShadowName) -> Result<(), Rejected> {
    let invalid = |e: crate::InvalidName| Rejected::new(400, e.to_string(), None);
    check_thing_name(thing).map_err(invalid)?;
    match shadow {
        ShadowName::Named(name) => ShadowName::named(name).map(|_| ()).map_err(invalid),
        ShadowName::Classic => Ok(()),
    }
}

fn missing(thing: &str, shadow: &ShadowName, token: Option<String>) -> Rejected {
    let name = FullName(thing, shadow);
    Rejected::new(404, format!("No shadow exists with name: '{name}'"), token)
}
