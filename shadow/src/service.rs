use std::collections::{BTreeMap, HashMap};
#[cfg(feature = "durable")]
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "durable")]
use keywright_sqlite::{GroupCommit, OpenError};
use serde_json::{Value, json};
use tokio::sync::broadcast;
#[cfg(feature = "durable")]
use tracing::error;

use crate::engine::{Document, Limits, Object, Rejected, Request, client_token, put_token};
use crate::message::{
    Accepted, Announcement, MessageKind, Payload, UPDATED, UPDATED_WITH_DIFFERENCE, Update,
};
use crate::name::{FullName, ShadowName, check_shadow_name, check_thing_name};
#[cfg(feature = "durable")]
use crate::store;
use crate::throttle::Throttle;

/// How a service behaves.
#[derive(Clone)]
pub struct ServiceConfig {
    /// The time in epoch seconds, which stamps metadata and messages.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What a document may be at most.
    pub limits: Limits,
}

/// A Device Shadow service in this process. Clones share the shadows.
#[derive(Clone)]
pub struct ShadowService {
    shared: Arc<Shared>,
    config: ServiceConfig,
    /// None: what is in memory is all there is.
    #[cfg(feature = "durable")]
    writer: Option<GroupCommit>,
}

/// What requests see, which is what was committed; and who is told when it changes.
struct Shared {
    shadows: Mutex<Shadows>,
    announcements: broadcast::Sender<Arc<Announcement>>,
    throttle: Throttle,
    /// The status that every request is refused with; 0: none.
    refusal: AtomicU16,
}

/// By the thing and the shadow's name.
type Shadows = HashMap<(String, ShadowName), Record>;

/// What an accepted request does, to be stored before anyone hears of it.
#[derive(Clone)]
struct Change {
    record: Record,
    /// What everyone is told of it, beside the answer.
    told: &'static [MessageKind],
    answer: Accepted,
}

/// What is kept of a shadow.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// It exists.
    Live(Arc<Document>),
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

/// How many announcements a subscriber may lag behind.
const BACKLOG: usize = 4096;

impl ShadowService {
    /// Shadows that are gone with the process.
    pub fn in_memory(config: ServiceConfig) -> Self {
        Self {
            shared: Arc::new(Shared::new(Shadows::new())),
            config,
            #[cfg(feature = "durable")]
            writer: None,
        }
    }

    /// Shadows in a file, which is made where it is missing. A request is durable before it is answered
    /// or published. One service a file: it is locked until the last clone is dropped.
    ///
    /// Once a commit fails, whose effect nobody knows then, changes are answered with 500 until the file
    /// is opened again, and reads show what was committed before.
    ///
    /// # Errors
    /// The file is corrupt, another program's, of another schema or in use.
    #[cfg(feature = "durable")]
    pub async fn open(path: &Path, config: ServiceConfig) -> Result<Self, OpenError> {
        let (sender, opened) = tokio::sync::oneshot::channel();
        let path = path.to_owned();
        let unusable = |error: std::io::Error| store::FORMAT.open_error(&path, error);
        let file = path.clone();
        // Reading the whole file would block the caller's thread.
        std::thread::Builder::new()
            .name("shadows-open".into())
            .spawn(move || drop(sender.send(store::open(&file))))
            .map_err(unusable)?;
        let opened = opened.await.map_err(std::io::Error::other);
        let (conn, records) = opened.map_err(unusable).flatten()?;
        let writer = GroupCommit::start("shadows", conn).map_err(unusable)?;
        Ok(Self {
            shared: Arc::new(Shared::new(records.into_iter().collect())),
            config,
            writer: Some(writer),
        })
    }

    /// Updates a shadow, which is made where it is missing. Messages go out in the order of versions.
    ///
    /// # Errors
    /// The request is invalid (400, 413, 415), expects another version (409) or cannot be stored (500).
    pub async fn update(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let request = Request::parse(body, &self.config.limits)?;
        self.apply(thing, shadow, request).await
    }

    /// As [`ShadowService::update`], with a request that was not sent as text.
    ///
    /// # Errors
    /// As there.
    pub async fn update_object(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: Object,
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let request = Request::of(body, &self.config.limits)?;
        self.apply(thing, shadow, request).await
    }

    async fn apply(
        &self,
        thing: &str,
        shadow: &ShadowName,
        request: Request,
    ) -> Result<Accepted, Rejected> {
        let limits = self.config.limits;
        self.admit(thing, request.client_token.as_deref())?;
        let (clock, token) = (self.config.clock.clone(), request.client_token.clone());
        let apply = move |record: Option<&Record>| updated(record, request, &limits, clock());
        self.change(thing, shadow, token, apply).await
    }

    /// Reads a shadow. The body is empty, or an object that may have a `clientToken`.
    ///
    /// # Errors
    /// The request is invalid (400, 415) or there is no such shadow (404).
    #[expect(
        clippy::unused_async,
        reason = "as update and delete; reads stay in memory"
    )]
    pub async fn get(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let token = client_token(body)?;
        self.admit(thing, token.as_deref())?;
        let Some(document) = self.document(thing, shadow) else {
            return Err(missing(thing, shadow, token));
        };
        let mut body = document.get_body((self.config.clock)());
        put_token(&mut body, token.as_deref());
        Ok(Accepted {
            version: document.version,
            payload: Payload::Body(body),
        })
    }

    /// Deletes a shadow. Its count goes on for 48 h, one further for the deletion itself.
    ///
    /// # Errors
    /// The request is invalid (400, 415), there is no such shadow (404) or this cannot be stored (500).
    pub async fn delete(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        check(thing, shadow)?;
        let token = client_token(body)?;
        self.admit(thing, token.as_deref())?;
        let (key, clock) = (
            (thing.to_owned(), shadow.clone()),
            self.config.clock.clone(),
        );
        let echo = token.clone();
        let apply = move |record: Option<&Record>| deleted(&key, record, token, clock());
        self.change(thing, shadow, echo, apply).await
    }

    /// Stores what the request makes of the record, then shows and publishes it.
    #[cfg_attr(
        not(feature = "durable"),
        expect(clippy::unused_async, reason = "a durable store waits here")
    )]
    async fn change<F>(
        &self,
        thing: &str,
        shadow: &ShadowName,
        token: Option<String>,
        apply: F,
    ) -> Result<Accepted, Rejected>
    where
        F: FnOnce(Option<&Record>) -> Result<Change, Rejected> + Send + 'static,
    {
        let key = (thing.to_owned(), shadow.clone());
        #[cfg(feature = "durable")]
        if let Some(writer) = &self.writer {
            let failed = move || Rejected::new(500, "Internal service failure", token.clone());
            let (at, unstored) = (key.clone(), failed.clone());
            let job = move |transaction: &rusqlite::Transaction<'_>| {
                // The requester learns only that it failed. Why is for whoever runs the service.
                let log = |error: rusqlite::Error| {
                    error!(shadow = %FullName(&at.0, &at.1), %error, "a shadow cannot be stored");
                    unstored()
                };
                let found = store::read(transaction, &at.0, &at.1).map_err(log)?;
                let change = apply(found.as_ref())?;
                store::write(transaction, &at.0, &at.1, &change.record).map_err(log)?;
                Ok(change)
            };
            let shared = Arc::clone(&self.shared);
            let show =
                move |change: &Change| shared.show(&mut shared.shadows(), key, change.clone());
            let done = writer.run_then(job, show).await;
            let done = done.map_err(|error| {
                error!(%error, "shadows cannot be stored");
                failed()
            });
            return done?.map(|change| change.answer);
        }
        #[cfg(not(feature = "durable"))]
        drop(token);
        let mut shadows = self.shared.shadows();
        let change = apply(shadows.get(&key))?;
        let answer = change.answer.clone();
        self.shared.show(&mut shadows, key, change);
        Ok(answer)
    }

    /// From now on a thing's shadows take at most so many requests a second, and refuse others with 429; `None`,
    /// which a service starts with: any number. AWS IoT takes 20.
    pub fn limit_requests(&self, a_second: Option<u32>) {
        self.shared.throttle.set(a_second);
    }

    /// From now on every valid request is refused with this status, for who wants to see what a client does then;
    /// `None`, which a service starts with: none is.
    pub fn refuse_all(&self, status: Option<u16>) {
        let status = status.unwrap_or_default();
        self.shared.refusal.store(status, Ordering::Relaxed);
    }

    fn admit(&self, thing: &str, token: Option<&str>) -> Result<(), Rejected> {
        let refusal = self.shared.refusal.load(Ordering::Relaxed);
        if refusal != 0 {
            let token = token.map(str::to_owned);
            return Err(Rejected::new(refusal, "Every request is refused", token));
        }
        if self.shared.throttle.admits(thing, &*self.config.clock) {
            return Ok(());
        }
        let token = token.map(str::to_owned);
        Err(Rejected::new(429, "TOO_MANY_REQUESTS", token))
    }

    /// The time in epoch seconds.
    #[cfg(feature = "rest")]
    pub(crate) fn now(&self) -> u64 {
        (self.config.clock)()
    }

    /// Waits until the service can store nothing more, because a commit failed; in memory for ever.
    pub async fn ended(&self) {
        #[cfg(feature = "durable")]
        if let Some(writer) = &self.writer {
            return writer.ended().await;
        }
        std::future::pending::<()>().await;
    }

    /// The names of a thing's named shadows, in order.
    pub fn named_shadows(&self, thing: &str) -> Vec<String> {
        let shadows = self.shared.shadows();
        let live = shadows
            .iter()
            .filter(|((t, _), r)| t == thing && matches!(r, Record::Live(_)));
        let names = live.filter_map(|((_, shadow), _)| match shadow {
            ShadowName::Named(name) => Some(name.clone()),
            ShadowName::Classic => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    /// What is stored, if the shadow exists.
    pub fn document(&self, thing: &str, shadow: &ShadowName) -> Option<Arc<Document>> {
        match self
            .shared
            .shadows()
            .get(&(thing.to_owned(), shadow.clone()))
        {
            Some(Record::Live(document)) => Some(document.clone()),
            _ => None,
        }
    }

    /// Puts a record in its place as it is, without a message: to take over what another store held.
    ///
    /// # Errors
    /// It cannot be stored (500).
    pub async fn put(
        &self,
        thing: &str,
        shadow: &ShadowName,
        record: Record,
    ) -> Result<(), Rejected> {
        let apply = move |_: Option<&Record>| {
            Ok(Change {
                record,
                told: &[],
                answer: Accepted {
                    version: 0,
                    payload: Payload::Body(Value::Null),
                },
            })
        };
        self.change(thing, shadow, None, apply).await.map(|_| ())
    }

    /// The shadows that have a difference now: for who may have missed the message that told of it.
    pub fn pending(&self) -> Vec<(String, ShadowName)> {
        let shadows = self.shared.shadows();
        let differs = |record: &Record| match record {
            Record::Live(document) => document.differs(),
            Record::Tombstone { .. } => false,
        };
        let pending = shadows.iter().filter(|(_, record)| differs(record));
        let mut pending: Vec<_> = pending.map(|(key, _)| key.clone()).collect();
        pending.sort_unstable();
        pending
    }

    /// What tells of a shadow's difference, if it has one now.
    pub fn difference(&self, thing: &str, shadow: &ShadowName) -> Option<Announcement> {
        let document = self.document(thing, shadow)?;
        let delta = document.delta_body((self.config.clock)())?;
        Some(Announcement {
            thing: thing.to_owned(),
            shadow: shadow.clone(),
            version: document.version,
            kinds: &[MessageKind::UpdateDelta],
            payload: Payload::Body(delta),
        })
    }

    /// Every record, ordered by thing and shadow.
    pub fn dump(&self) -> BTreeMap<(String, ShadowName), Record> {
        let shadows = self.shared.shadows();
        let records = shadows.iter();
        records
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect()
    }

    /// What is told of all shadows from now on. A subscriber that lags far behind misses some, is told so, and
    /// has to get what it needs.
    pub fn subscribe_all(&self) -> broadcast::Receiver<Arc<Announcement>> {
        self.shared.announcements.subscribe()
    }
}

impl Shared {
    fn new(shadows: Shadows) -> Self {
        Self {
            shadows: Mutex::new(shadows),
            announcements: broadcast::channel(BACKLOG).0,
            throttle: Throttle::default(),
            refusal: AtomicU16::new(0),
        }
    }

    /// Whoever calls this holds the shadows, so that nobody hears of a change and does not see it.
    fn show(&self, shadows: &mut Shadows, key: (String, ShadowName), change: Change) {
        let Change {
            record,
            told,
            answer: Accepted { version, payload },
        } = change;
        if self.announcements.receiver_count() > 0 && !told.is_empty() {
            let announcement = Announcement {
                thing: key.0.clone(),
                shadow: key.1.clone(),
                version,
                kinds: told,
                payload,
            };
            // Whoever listened may be gone.
            let _ = self.announcements.send(Arc::new(announcement));
        }
        shadows.insert(key, record);
    }

    fn shadows(&self) -> MutexGuard<'_, Shadows> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn updated(
    record: Option<&Record>,
    request: Request,
    limits: &Limits,
    now: u64,
) -> Result<Change, Rejected> {
    let previous = match record {
        Some(Record::Live(document)) => Some(document.clone()),
        _ => None,
    };
    let fresh = match record {
        Some(Record::Tombstone {
            version,
            deleted_at,
        }) if now.saturating_sub(*deleted_at) < TOMBSTONE_SECS => Document {
            version: *version,
            ..Document::default()
        },
        _ => Document::default(),
    };
    let base = previous.as_deref().unwrap_or(&fresh);
    let current = Arc::new(base.update(&request, limits, now)?);
    let (version, record) = (current.version, Record::Live(current.clone()));
    let told = match current.differs() {
        true => UPDATED_WITH_DIFFERENCE,
        false => UPDATED,
    };
    let payload = Payload::Update(Arc::new(Update {
        request,
        previous,
        current,
        now,
    }));
    Ok(Change {
        record,
        told,
        answer: Accepted { version, payload },
    })
}

fn deleted(
    key: &(String, ShadowName),
    record: Option<&Record>,
    token: Option<String>,
    now: u64,
) -> Result<Change, Rejected> {
    let Some(Record::Live(document)) = record else {
        return Err(missing(&key.0, &key.1, token));
    };
    let version = document.version;
    let mut body = json!({ "version": version, "timestamp": now });
    put_token(&mut body, token.as_deref());
    Ok(Change {
        record: Record::Tombstone {
            version: version + 1,
            deleted_at: now,
        },
        told: &[MessageKind::DeleteAccepted],
        answer: Accepted {
            version,
            payload: Payload::Body(body),
        },
    })
}

fn check(thing: &str, shadow: &ShadowName) -> Result<(), Rejected> {
    let invalid = |e: crate::InvalidName| Rejected::new(400, e.to_string(), None);
    check_thing_name(thing).map_err(invalid)?;
    match shadow {
        ShadowName::Named(name) => check_shadow_name(name).map_err(invalid),
        ShadowName::Classic => Ok(()),
    }
}

fn missing(thing: &str, shadow: &ShadowName, token: Option<String>) -> Rejected {
    let name = FullName(thing, shadow);
    Rejected::new(404, format!("No shadow exists with name: '{name}'"), token)
}
