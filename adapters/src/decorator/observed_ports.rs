//! Notifies observers of the calls of a port.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, ClientToken, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId,
    LockSnapshot, LockVersion, LoggedEvent, Position, RecordedEvent, Save, ShadowChange,
    ShadowSnapshot, ShadowVersion, ThingName, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::ports::{
    ImportError, LockHistory, LockRepo, RepoError, ShadowError, ShadowPort,
};
use tokio::time::Instant;

use super::observer::{CallOutcome, Observers, PortCall};

/// Calls a port and notifies observers of each call. A call whose future is dropped counts as given up.
#[derive(Clone)]
pub struct Observed<P: ?Sized> {
    inner: Arc<P>,
    observers: Observers,
}

impl<P: ?Sized> Observed<P> {
    /// Notifies `observers` of the calls of `inner`.
    pub const fn new(inner: Arc<P>, observers: Observers) -> Self {
        Self { inner, observers }
    }

    fn start<'a>(&'a self, call: PortCall<'a>) -> RunningCall<'a> {
        RunningCall {
            observers: &self.observers,
            call,
            start: Instant::now(),
            ended: false,
        }
    }
}

/// A call that has not ended. Dropping it reports the call as given up.
struct RunningCall<'a> {
    observers: &'a Observers,
    call: PortCall<'a>,
    start: Instant,
    ended: bool,
}

impl RunningCall<'_> {
    fn end(mut self, outcome: &CallOutcome<'_>) {
        self.ended = true;
        self.notify(outcome);
    }

    fn end_store<T>(self, result: &Result<T, RepoError>) {
        self.end(&match result {
            Ok(_) => CallOutcome::Done,
            Err(error) => CallOutcome::StoreFailed(error),
        });
    }

    fn notify(&self, outcome: &CallOutcome<'_>) {
        let took = self.start.elapsed();
        for observer in self.observers.iter() {
            observer.call_ended(&self.call, outcome, took);
        }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.notify(&CallOutcome::GivenUp);
        }
    }
}

fn update_kind(change: &ShadowChange) -> &'static str {
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
        let token = change.token.clone();
        let call = self.start(PortCall::ShadowUpdate {
            thing,
            kind: update_kind(&change),
            token: &token,
            expected: change.expected,
        });
        let result = self.inner.update(thing, change).await;
        call.end(&match &result {
            Ok(version) => CallOutcome::ShadowVersion(Some(*version)),
            Err(error) => CallOutcome::ShadowFailed(error),
        });
        result
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let call = self.start(PortCall::ShadowRead { thing });
        let result = self.inner.read(thing, token).await;
        call.end(&match &result {
            Ok(found) => CallOutcome::ShadowVersion(found.as_ref().map(|f| f.version)),
            Err(error) => CallOutcome::ShadowFailed(error),
        });
        result
    }
}

#[async_trait]
impl LockRepo for Observed<dyn LockRepo> {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        let call = self.start(PortCall::Load { lock });
        let result = self.inner.load(lock).await;
        call.end_store(&result);
        result
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let for_observers = Save {
            lock: save.lock,
            revision: save.revision,
            events: save.events.clone(),
            folded: None,
            writes: save.writes.clone(),
            shadow_version: save.shadow_version,
            idempotency: None,
            new_anomalies: save.new_anomalies.clone(),
        };
        let call = self.start(PortCall::Save { lock: save.lock });
        let result = self.inner.save(save).await;
        call.end_store(&result);
        if result.is_ok() {
            for observer in self.observers.iter() {
                observer.saved(&for_observers);
            }
        }
        result
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        let call = self.start(PortCall::Claim);
        let result = self.inner.claim(worker, lease).await;
        match &result {
            Ok(Some(write)) => call.end(&CallOutcome::Claimed(write)),
            other => call.end_store(other),
        }
        result
    }
}

impl Observed<dyn LockHistory> {
    async fn observe_history_call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, RepoError>>,
    ) -> Result<T, RepoError> {
        let started = self.start(PortCall::History(name));
        let result = call.await;
        started.end_store(&result);
        result
    }
}

#[async_trait]
impl LockHistory for Observed<dyn LockHistory> {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        self.observe_history_call("find_write", self.inner.write(id))
            .await
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let events = self.inner.events(lock, first, limit);
        self.observe_history_call("events", events).await
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let events = self.inner.events_after(after, limit);
        self.observe_history_call("events_after", events).await
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let writes = self.inner.writes(before, limit);
        self.observe_history_call("writes", writes).await
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        let position = self.inner.last_position();
        self.observe_history_call("last_position", position).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let due = self.inner.due(until, after, limit);
        self.observe_history_call("due", due).await
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        self.observe_history_call("backlog", self.inner.backlog(recent_times))
            .await
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        let record = self.inner.idempotency_record(scope);
        self.observe_history_call("idempotency_record", record)
            .await
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let purged = self.inner.purge(now, ended_before, limit);
        self.observe_history_call("purge", purged).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        self.observe_history_call("locks", self.inner.locks(after, limit))
            .await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let call = self.start(PortCall::History("import"));
        let result = self.inner.import(events).await;
        call.end(&match &result {
            Ok(()) => CallOutcome::Done,
            Err(ImportError::NotAStream { .. }) => CallOutcome::ImportRefused,
            Err(ImportError::Store(error)) => CallOutcome::StoreFailed(error),
        });
        result
    }
}
