//! Bounds the time of each call to a store.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockSnapshot,
    LockVersion, LoggedEvent, Position, RecordedEvent, Save, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError};

/// Drops a call to a store that takes too long. If the call may have an effect, its outcome is *unknown*. The domain itself bounds its
/// calls to the shadow port.
#[derive(Clone)]
pub struct Timeout<P: ?Sized> {
    inner: Arc<P>,
    limit: Duration,
}

impl<P: ?Sized> Timeout<P> {
    /// Bounds each call of `inner` to `limit`.
    pub const fn new(inner: Arc<P>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        timed_out: impl FnOnce(String) -> E,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(format!("no answer within {:?}", self.limit))),
        }
    }
}

#[async_trait]
impl LockRepo for Timeout<dyn LockRepo> {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.within(self.inner.load(lock), RepoError::Unavailable)
            .await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        self.within(self.inner.save(save), RepoError::Unknown).await
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.within(self.inner.claim(worker, lease), RepoError::Unknown)
            .await
    }
}

#[async_trait]
impl LockHistory for Timeout<dyn LockHistory> {
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError> {
        self.within(self.inner.write(id), RepoError::Unavailable)
            .await
    }

    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError> {
        let reading = self.inner.events(lock, first, limit);
        self.within(reading, RepoError::Unavailable).await
    }

    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError> {
        let reading = self.inner.events_after(after, limit);
        self.within(reading, RepoError::Unavailable).await
    }

    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError> {
        let reading = self.inner.writes(before, limit);
        self.within(reading, RepoError::Unavailable).await
    }

    async fn last_position(&self) -> Result<Position, RepoError> {
        let reading = self.inner.last_position();
        self.within(reading, RepoError::Unavailable).await
    }

    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let reading = self.inner.due(until, after, limit);
        self.within(reading, RepoError::Unavailable).await
    }

    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError> {
        self.within(self.inner.backlog(recent_times), RepoError::Unavailable)
            .await
    }

    async fn idempotency_record(
        &self,
        scope: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError> {
        self.within(self.inner.idempotency_record(scope), RepoError::Unavailable)
            .await
    }

    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError> {
        let purging = self.inner.purge(now, ended_before, limit);
        self.within(purging, RepoError::Unknown).await
    }

    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError> {
        let reading = self.inner.locks(after, limit);
        self.within(reading, RepoError::Unavailable).await
    }

    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let timed_out = |why| ImportError::Store(RepoError::Unknown(why));
        self.within(self.inner.import(events), timed_out).await
    }
}
