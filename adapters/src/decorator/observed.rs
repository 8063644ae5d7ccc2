//! What goes through a port, for who counts and measures it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Anomaly, ClientToken, LockEvent, LockId, LockSnapshot, RecordedEvent, Save, ShadowChange,
    ShadowSnapshot, ShadowVersion, ThingName, WorkerId, Write,
};
use keywright_domain::ports::{LockRepo, RepoError, ShadowError, ShadowPort};
use tokio::time::Instant;

/// One call of a port that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// `shadow` or `store`.
    pub port: &'static str,
    /// Which call: of a shadow `put` (an update with an entry), `fence` (one that changes nothing), `update` (any
    /// other) or `read`; of a store `load`, `save` or `claim`.
    pub call: &'static str,
    /// `ok`, or the class of the error: `conflict`, `not_applied`, `refused`, `unknown`; `stale`, `unavailable`,
    /// `corrupt`; `given_up` where nobody waited for its end.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
}

impl Call {
    /// The calls of each port, and the outcomes that each may have.
    pub const KNOWN: [(
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    ); 2] = [
        (
            "shadow",
            &["put", "fence", "update", "read"],
            &[
                "ok",
                "not_applied",
                "refused",
                "conflict",
                "unknown",
                "given_up",
            ],
        ),
        (
            "store",
            &["load", "save", "claim"],
            &[
                "ok",
                "stale",
                "unavailable",
                "unknown",
                "corrupt",
                "given_up",
            ],
        ),
    ];
}

/// Who is told of what goes through ports.
pub trait Observer: Send + Sync {
    /// A call has ended.
    fn called(&self, call: Call);
    /// A save was taken that recorded this.
    fn recorded(&self, event: Recorded);
    /// A save was taken that noticed this about the lock's answers to a write.
    fn anomaly(&self, anomaly: Anomaly);
}

/// One event that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its type.
    pub event: &'static str,
    /// The lock's own word on a write, where it is that.
    pub settled: Option<Settled>,
}

/// The lock's own word on a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// It came after the write had ended otherwise.
    pub late: bool,
    /// From the event of its request on, where there is one.
    pub took: Option<Duration>,
}

impl Recorded {
    fn of(recorded: &RecordedEvent, writes: &[Write]) -> Self {
        let late = match &recorded.event {
            LockEvent::KeyWriteConfirmed { late, .. } | LockEvent::KeyWriteFailed { late, .. } => {
                Some(*late)
            }
            _ => None,
        };
        let write = writes.iter().find(|w| Some(w.id) == recorded.write);
        let requested = write.and_then(|w| w.requested);
        let took = requested.map(|r| recorded.time.since(r.time));
        Self {
            event: recorded.event.name(),
            settled: late.map(|late| Settled { late, took }),
        }
    }
}

/// Tells of the calls of a port.
#[derive(Clone)]
pub struct Observed<P: ?Sized> {
    inner: Arc<P>,
    observer: Arc<dyn Observer>,
}

impl<P: ?Sized> Observed<P> {
    /// Tells `observer` of the calls of `inner`.
    pub fn new(inner: Arc<P>, observer: Arc<dyn Observer>) -> Self {
        Self { inner, observer }
    }

    fn begin(&self, port: &'static str, call: &'static str) -> CallGuard<'_> {
        CallGuard {
            observer: &*self.observer,
            call: Call {
                port,
                call,
                outcome: "given_up",
                took: Duration::ZERO,
            },
            start: Instant::now(),
        }
    }
}

/// A call; one that is given up is told of, too.
struct CallGuard<'a> {
    observer: &'a dyn Observer,
    call: Call,
    start: Instant,
}

impl CallGuard<'_> {
    fn end(mut self, outcome: &'static str) {
        self.call.outcome = outcome;
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.call.took = self.start.elapsed();
        self.observer.called(self.call);
    }
}

fn of_shadow<T>(answer: &Result<T, ShadowError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(ShadowError::NotApplied { .. }) => "not_applied",
        Err(ShadowError::Refused { .. }) => "refused",
        Err(ShadowError::Conflict) => "conflict",
        Err(ShadowError::Unknown(_)) => "unknown",
    }
}

fn of_store<T>(answer: &Result<T, RepoError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(RepoError::Stale) => "stale",
        Err(RepoError::Unavailable(_)) => "unavailable",
        Err(RepoError::Unknown(_)) => "unknown",
        Err(RepoError::Corrupt { .. }) => "corrupt",
    }
}

fn call_of(change: &ShadowChange) -> &'static str {
    let bare = change.remove.is_empty() && change.clear_results.is_empty();
    match change.put {
        Some(_) => "put",
        None if bare && change.expected.is_some() => "fence",
        None => "update",
    }
}

#[async_trait]
impl ShadowPort for Observed<dyn ShadowPort> {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let under_way = self.begin("shadow", call_of(&change));
        let answer = self.inner.update(thing, change).await;
        under_way.end(of_shadow(&answer));
        answer
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let under_way = self.begin("shadow", "read");
        let answer = self.inner.read(thing, token).await;
        under_way.end(of_shadow(&answer));
        answer
    }
}

#[async_trait]
impl LockRepo for Observed<dyn LockRepo> {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let under_way = self.begin("store", "load");
        let answer = self.inner.load(lock).await;
        under_way.end(of_store(&answer));
        answer
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let events = save.events.iter();
        let news: Vec<_> = events.map(|e| Recorded::of(e, &save.writes)).collect();
        let new_anomalies = save.new_anomalies.clone();
        let under_way = self.begin("store", "save");
        let answer = self.inner.save(save).await;
        under_way.end(of_store(&answer));
        if answer.is_ok() {
            news.into_iter()
                .for_each(|event| self.observer.recorded(event));
            for (_, anomaly) in new_anomalies {
                self.observer.anomaly(anomaly);
            }
        }
        answer
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let under_way = self.begin("store", "claim");
        let answer = self.inner.claim(owner, lease).await;
        under_way.end(of_store(&answer));
        answer
    }
}
