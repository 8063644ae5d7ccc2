use std::collections::{BTreeMap, HashMap};
#[cfg(feature = "durable")]
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "durable")]
use keywright_sqlite::{GroupCommit, OpenError};
use tokio::sync::broadcast;
#[cfg(feature = "durable")]
use tracing::error;

use crate::change::{Change, no_such_shadow};
use crate::engine::{Document, Limits, Object, Rejected, Request, client_token, put_token};
use crate::message::{Accepted, Announcement, MessageKind, Payload};
use crate::name::{ShadowKey, ShadowName};
use crate::record::Record;
use crate::requests_per_second::RequestsPerSecond;
#[cfg(feature = "durable")]
use crate::store;

/// The clock and the limits of a service.
#[derive(Clone)]
pub struct ServiceConfig {
    /// Returns the time in epoch seconds, for the timestamps of metadata and messages.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The limits of a shadow document.
    pub limits: Limits,
}

/// A Device Shadow service in this process. Clones share the shadows.
#[derive(Clone)]
pub struct ShadowService {
    shared: Arc<Shared>,
    config: ServiceConfig,
    /// `None`: the shadows are only in memory.
    #[cfg(feature = "durable")]
    writer: Option<GroupCommit>,
}

/// The committed shadows, and the subscribers to their changes.
struct Shared {
    records: Mutex<Records>,
    announcements: broadcast::Sender<Arc<Announcement>>,
    requests_per_second: RequestsPerSecond,
    /// The status with which every request is rejected; 0: requests are not rejected.
    reject_all_with: AtomicU16,
}

type Records = HashMap<ShadowKey, Record>;

/// How many announcements a subscriber may lag behind.
const MAX_LAG: usize = 4096;

impl ShadowService {
    /// A service whose shadows are lost when the process ends.
    pub fn in_memory(config: ServiceConfig) -> Self {
        Self {
            shared: Arc::new(Shared::new(Records::new())),
            config,
            #[cfg(feature = "durable")]
            writer: None,
        }
    }

    /// A service with its shadows in a file, which is created if it is missing. A change is durable before it is answered or published.
    /// The file is locked until the last clone is dropped.
    ///
    /// After a failed commit, whose effect is unknown, changes are rejected with 500 until the file is opened again, and reads return
    /// what was committed before.
    ///
    /// # Errors
    /// The file is corrupt, belongs to another program, has a newer schema, or is in use.
    #[cfg(feature = "durable")]
    pub async fn open(path: &Path, config: ServiceConfig) -> Result<Self, OpenError> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let path = path.to_owned();
        let io_error = |error: std::io::Error| store::FORMAT.open_error(&path, error);
        let file = path.clone();
        // Reading the whole file would block the caller's thread.
        std::thread::Builder::new()
            .name("shadows-open".into())
            .spawn(move || drop(tx.send(store::open(&file))))
            .map_err(io_error)?;
        let opened = rx.await.map_err(std::io::Error::other);
        let (conn, records) = opened.map_err(io_error).flatten()?;
        let writer = GroupCommit::start("shadows", conn).map_err(io_error)?;
        Ok(Self {
            shared: Arc::new(Shared::new(records)),
            config,
            writer: Some(writer),
        })
    }

    /// Updates a shadow, which is created if it is missing. Announcements are sent in the order of versions.
    ///
    /// # Errors
    /// The request is invalid (400, 413, 415), expects another version (409), or cannot be stored (500).
    pub async fn update(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        let key = checked_key(thing, shadow)?;
        let request = Request::parse(body, &self.config.limits)?;
        self.apply_update(key, request).await
    }

    /// As [`ShadowService::update`], with a body that is parsed already.
    ///
    /// # Errors
    /// As [`ShadowService::update`].
    pub async fn update_object(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: Object,
    ) -> Result<Accepted, Rejected> {
        let key = checked_key(thing, shadow)?;
        let request = Request::from_object(body, &self.config.limits)?;
        self.apply_update(key, request).await
    }

    async fn apply_update(&self, key: ShadowKey, request: Request) -> Result<Accepted, Rejected> {
        let limits = self.config.limits;
        self.admit(&key.thing, request.client_token.as_deref())?;
        let (clock, token) = (self.config.clock.clone(), request.client_token.clone());
        let decide =
            move |record: Option<&Record>| Change::update(record, request, &limits, clock());
        self.change(key, token, decide).await
    }

    /// Reads a shadow. The body is empty, or an object that may have a `clientToken`.
    ///
    /// # Errors
    /// The request is invalid (400, 415), or there is no such shadow (404).
    #[expect(
        clippy::unused_async,
        reason = "as update and delete; reads need no I/O"
    )]
    pub async fn get(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        let key = checked_key(thing, shadow)?;
        let token = client_token(body)?;
        self.admit(thing, token.as_deref())?;
        let Some(document) = self.shared.document(&key) else {
            return Err(no_such_shadow(&key, token));
        };
        let mut body = document.get_body((self.config.clock)());
        put_token(&mut body, token.as_deref());
        Ok(Accepted {
            version: document.version,
            payload: Payload::Body(body),
        })
    }

    /// Deletes a shadow. For 48 h a shadow that is created again continues its versions, the deletion counting as one.
    ///
    /// # Errors
    /// The request is invalid (400, 415), there is no such shadow (404), or the deletion cannot be stored (500).
    pub async fn delete(
        &self,
        thing: &str,
        shadow: &ShadowName,
        body: &[u8],
    ) -> Result<Accepted, Rejected> {
        let key = checked_key(thing, shadow)?;
        let token = client_token(body)?;
        self.admit(thing, token.as_deref())?;
        let (deleted, clock) = (key.clone(), self.config.clock.clone());
        let echoed = token.clone();
        let decide =
            move |record: Option<&Record>| Change::delete(&deleted, record, echoed, clock());
        self.change(key, token, decide).await
    }

    /// Decides about the record, stores the change, and then shows and publishes it. `token` is for the rejection if that fails.
    #[cfg_attr(
        not(feature = "durable"),
        expect(clippy::unused_async, reason = "a durable store waits here")
    )]
    async fn change<F>(
        &self,
        key: ShadowKey,
        token: Option<String>,
        decide: F,
    ) -> Result<Accepted, Rejected>
    where
        F: FnOnce(Option<&Record>) -> Result<Change, Rejected> + Send + 'static,
    {
        #[cfg(feature = "durable")]
        if let Some(writer) = &self.writer {
            let failure = move || Rejected::new(500, "Internal service failure", token.clone());
            let (stored, job_failure) = (key.clone(), failure.clone());
            let job = move |transaction: &rusqlite::Transaction<'_>| {
                // Only the log has the reason: it is for the operator.
                let log = |error: rusqlite::Error| {
                    error!(shadow = %stored, %error, "a shadow cannot be stored");
                    job_failure()
                };
                let record = store::read(transaction, &stored).map_err(log)?;
                let change = decide(record.as_ref())?;
                store::write(transaction, &stored, &change.record).map_err(log)?;
                Ok(change)
            };
            let shared = Arc::clone(&self.shared);
            let show =
                move |change: &Change| shared.show(&mut shared.records(), key, change.clone());
            let committed = writer.run_then(job, show).await.map_err(|error| {
                error!(%error, "shadows cannot be stored");
                failure()
            });
            return committed?.map(|change| change.answer);
        }
        #[cfg(not(feature = "durable"))]
        drop(token);
        let mut records = self.shared.records();
        let change = decide(records.get(&key))?;
        let answer = change.answer.clone();
        self.shared.show(&mut records, key, change);
        Ok(answer)
    }

    /// Limits the requests per second to the shadows of one thing; further ones are rejected with 429. `None`, the default: no limit.
    /// AWS IoT's limit is 20.
    pub fn limit_requests(&self, max_per_second: Option<u32>) {
        self.shared.requests_per_second.set(max_per_second);
    }

    /// Rejects every valid request with this status, to test how clients handle it. `None`, the default: requests are served.
    pub fn refuse_all(&self, status: Option<u16>) {
        let status = status.unwrap_or_default();
        self.shared.reject_all_with.store(status, Ordering::Relaxed);
    }

    fn admit(&self, thing: &str, token: Option<&str>) -> Result<(), Rejected> {
        let reject =
            |status, text: &str| Err(Rejected::new(status, text, token.map(str::to_owned)));
        match self.shared.reject_all_with.load(Ordering::Relaxed) {
            0 => {}
            status => return reject(status, "Every request is refused"),
        }
        match self
            .shared
            .requests_per_second
            .admits(thing, &*self.config.clock)
        {
            true => Ok(()),
            false => reject(429, "TOO_MANY_REQUESTS"),
        }
    }

    /// The time in epoch seconds.
    #[cfg(feature = "rest")]
    pub(crate) fn now(&self) -> u64 {
        (self.config.clock)()
    }

    /// Waits until the service can store nothing more because a commit failed. In memory this never happens.
    pub async fn ended(&self) {
        #[cfg(feature = "durable")]
        if let Some(writer) = &self.writer {
            let error = writer.ended().await;
            // The process may end before the failed request has logged the reason.
            error!(%error, "shadows cannot be stored");
            return;
        }
        std::future::pending::<()>().await;
    }

    /// The names of a thing's named shadows, sorted.
    pub fn named_shadows(&self, thing: &str) -> Vec<String> {
        let records = self.shared.records();
        let live = records
            .iter()
            .filter(|(key, record)| key.thing == thing && record.document().is_some());
        let names = live.filter_map(|(key, _)| match &key.shadow {
            ShadowName::Named(name) => Some(name.clone()),
            ShadowName::Classic => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    /// The document of a shadow, if the shadow exists.
    pub fn document(&self, thing: &str, shadow: &ShadowName) -> Option<Arc<Document>> {
        self.shared.document(&ShadowKey::new(thing, shadow))
    }

    /// Replaces the record of a shadow without publishing a message.
    ///
    /// # Errors
    /// The record cannot be stored (500).
    pub async fn put_record(
        &self,
        thing: &str,
        shadow: &ShadowName,
        record: Record,
    ) -> Result<(), Rejected> {
        let replace = move |_: Option<&Record>| Ok(Change::replace(record));
        let key = ShadowKey::new(thing, shadow);
        self.change(key, None, replace).await.map(drop)
    }

    /// The shadows that have a delta now, sorted.
    pub fn shadows_with_delta(&self) -> Vec<ShadowKey> {
        let records = self.shared.records();
        let has_delta = |record: &Record| record.document().is_some_and(|d| d.has_delta());
        let mut keys: Vec<ShadowKey> = records
            .iter()
            .filter(|(_, record)| has_delta(record))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_unstable();
        keys
    }

    /// A delta message of a shadow, for subscribers that may have missed the last one. `None`: there is no delta now.
    pub fn delta_announcement(&self, key: &ShadowKey) -> Option<Announcement> {
        let document = self.shared.document(key)?;
        let delta = document.delta_body((self.config.clock)())?;
        Some(Announcement {
            thing: key.thing.clone(),
            shadow: key.shadow.clone(),
            version: document.version,
            kinds: &[MessageKind::UpdateDelta],
            payload: Payload::Body(delta),
        })
    }

    /// All records, including those of deleted shadows.
    pub fn records(&self) -> BTreeMap<ShadowKey, Record> {
        let records = self.shared.records();
        let copies = records.iter();
        copies.map(|(k, r)| (k.clone(), r.clone())).collect()
    }

    /// Subscribes to the announcements of all shadows. A subscriber that lags more than 4096 of them behind misses some, gets
    /// `RecvError::Lagged`, and should read the shadows that it needs.
    pub fn subscribe_all(&self) -> broadcast::Receiver<Arc<Announcement>> {
        self.shared.announcements.subscribe()
    }
}

impl Shared {
    fn new(records: Records) -> Self {
        Self {
            records: Mutex::new(records),
            announcements: broadcast::channel(MAX_LAG).0,
            requests_per_second: RequestsPerSecond::default(),
            reject_all_with: AtomicU16::new(0),
        }
    }

    /// Publishes a committed change and makes it visible to readers. The caller holds the lock, so that a subscriber that
    /// receives the announcement cannot read the old record.
    fn show(&self, records: &mut Records, key: ShadowKey, change: Change) {
        let Change {
            record,
            published,
            answer: Accepted { version, payload },
        } = change;
        if self.announcements.receiver_count() > 0 && !published.is_empty() {
            let announcement = Announcement {
                thing: key.thing.clone(),
                shadow: key.shadow.clone(),
                version,
                kinds: published,
                payload,
            };
            // `send` fails only if there is no subscriber any more.
            let _ = self.announcements.send(Arc::new(announcement));
        }
        records.insert(key, record);
    }

    fn document(&self, key: &ShadowKey) -> Option<Arc<Document>> {
        self.records().get(key)?.document().cloned()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked_key(thing: &str, shadow: &ShadowName) -> Result<ShadowKey, Rejected> {
    ShadowKey::checked(thing, shadow).map_err(|e| Rejected::new(400, e.to_string(), None))
}
