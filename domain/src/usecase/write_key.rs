//! Writing a key: the request's own path through the write protocol. The steps are those of docs/protocol.md.

use std::pin::pin;
use std::time::Duration;

use super::attempt::Attempt;
use super::attempt_runner::{PreparedWrite, WriteOutcome};
use super::deadline::bounded;
use super::key_writes::{ClientTokens, KeyWrites};
use super::shadow_calls::reason_of;
use crate::model::{
    Cause, Epoch, FailureReason, IdempotencyKey, IdempotencyRecord, IdempotencyScope, Intent,
    LockSnapshot, LockVersion, Principal, RecordedEvent, RequestId, ShadowVersion, ThingName, Tick,
    Write, WriteId,
};
use crate::policy::{
    self, IdempotencyDecision, NewWrite, Permitted, Rejection, WriteDecision, WriteKey,
};
use crate::ports::RepoError;

/// The result of a successful request: the contents of a 200.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteReceipt {
    /// The new write, or the open write that was found to be the same.
    pub write: WriteId,
    /// The lock's version after the event. Without an event: the lock's version when the request was first answered.
    pub version: LockVersion,
    /// The `KeyWriteRequested`. `None`: the same write was open already, and no event was recorded.
    pub event: Option<RecordedEvent>,
}

impl WriteReceipt {
    /// A receipt with these contents.
    #[must_use]
    pub const fn new(write: WriteId, version: LockVersion, event: Option<RecordedEvent>) -> Self {
        Self {
            write,
            version,
            event,
        }
    }
}

/// Options of a request.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestOptions {
    /// The client's own key of the request (invariant I7).
    pub idempotency_key: Option<IdempotencyKey>,
    /// The deadline of the answer, as a tick of the [`Timer`](crate::ports::Timer). It is capped at [`super::Settings::request_timeout`] from
    /// now, which is also the default.
    pub deadline: Option<Tick>,
    /// The id of the request. The write's events keep it in their [`Cause`].
    pub request_id: Option<RequestId>,
}

impl RequestOptions {
    /// Sets the client's own key of the request, or none.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<Option<IdempotencyKey>>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    /// Sets the deadline of the answer.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Tick) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the id of the request.
    #[must_use]
    pub fn with_request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

/// Why a key was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A rule rejects the request. Nothing happened.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The request could not send its update in time: it waited too long in the lock's queue, or the store or the shadow answered too
    /// late. The shadow does not have the write. If the intent was saved nevertheless, the recoverer aborts it.
    #[error("other writes of the lock are in progress")]
    Busy {
        /// The write with an unknown outcome that blocked the queue, if there was one.
        undecided: Option<WriteId>,
    },
    /// The shadow does not have the write and never will by this request (invariant I2).
    #[error("the shadow could not be updated: {0}")]
    NotUpdated(FailureReason),
    /// The deadline passed before the outcome was known. The outcome is resolved without a further
    /// request (invariant I3).
    #[error("the outcome of write {0} is not known yet")]
    Undecided(WriteId),
    /// An earlier request with the same idempotency key is still running. This one changed nothing.
    #[error("an earlier request with this idempotency key is still running")]
    StillRunning,
    /// An earlier request with the same idempotency key had another command. This one changed nothing.
    #[error("an earlier request with this idempotency key had another command")]
    OtherCommand,
    /// The store failed before the update was sent. The shadow does not have the write. If the intent was saved nevertheless, because
    /// the answer to its save was lost, the recoverer aborts it.
    #[error(transparent)]
    Store(#[from] RepoError),
}

/// How often a waiting request reads from the store whether the lock's prepared write is resolved.
const PREPARED_POLL_INTERVAL: Duration = Duration::from_millis(40);

impl KeyWrites {
    /// Writes a key: decides, prepares the write, updates the shadow, records the event. The caller must have
    /// authenticated the principal.
    ///
    /// With an idempotency key, a repeated request gets the first answer for [`policy::Limits::idempotency_retention`]. Requests
    /// that changed nothing are not remembered and run again.
    ///
    /// It returns within [`super::Settings::request_timeout`].
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_key(
        &self,
        command: &WriteKey,
        principal: &Principal,
        options: RequestOptions,
    ) -> Result<WriteReceipt, WriteError> {
        let deadline = self.request_deadline(options.deadline);
        let key = options.idempotency_key;
        let request = Request {
            command,
            principal,
            id: options.request_id,
            scope: key.map(|key| IdempotencyScope::new(command.lock, principal, key)),
            deadline,
            queue_deadline: deadline.min(self.deadline(self.settings.queue_timeout)),
        };
        let busy = || WriteError::Busy { undecided: None };
        let timer = &*self.ports.timer;
        let lookup = async {
            let snapshot = self.ports.locks.load(command.lock).await?;
            // A repeated request gets its first answer, whatever the other rules say now.
            let snapshot = policy::authorize_write(snapshot, principal, &*self.access)?;
            Ok::<_, WriteError>((self.earlier_answer(&request).await?, snapshot))
        };
        let found = bounded(timer, request.queue_deadline, pin!(lookup)).await;
        let (earlier, snapshot) = found.unwrap_or_else(|| Err(busy()))?;
        if let Some(earlier) = earlier {
            return Ok(earlier);
        }
        match self.decide(&request, &snapshot)? {
            WriteDecision::AlreadyOpen(same) if request.scope.is_none() => {
                return Ok(receipt_without_event(same, snapshot.lock.version));
            }
            _ => {}
        }
        let queue = &self.lock_queues;
        let permit = queue.acquire(command.lock, timer, request.queue_deadline);
        let _permit = permit.await.ok_or_else(busy)?;
        let preparing = self.prepare(&request, snapshot);
        let prepared = bounded(timer, deadline, pin!(preparing)).await;
        match prepared.unwrap_or_else(|| Err(busy()))? {
            Preparation::Answered(receipt) => Ok(receipt),
            Preparation::Write(prepared, version) => {
                let id = prepared.write.id;
                let outcome = self.execute(*prepared, Attempt::for_request(version));
                answer(id, bounded(timer, deadline, pin!(outcome)).await)
            }
        }
    }

    /// The answer of an earlier request with the same idempotency key. Call it after loading the lock: if a record
    /// is stored after this read, a save at the loaded revision is stale.
    async fn earlier_answer(
        &self,
        request: &Request<'_>,
    ) -> Result<Option<WriteReceipt>, WriteError> {
        let Some(scope) = &request.scope else {
            return Ok(None);
        };
        let history = &self.ports.history;
        let Some(record) = history.idempotency_record(scope).await? else {
            return Ok(None);
        };
        let write = history.write(record.write).await?;
        let now = self.ports.clock.now();
        let (slot, timeout) = (&request.command.slot, self.settings.request_timeout);
        let decision = policy::decide_idempotency(&record, write.as_ref(), slot, timeout, now);
        match (decision, write) {
            (IdempotencyDecision::Answered(id, Some(version)), _) => {
                Ok(Some(receipt_without_event(id, version)))
            }
            (IdempotencyDecision::Answered(id, None), Some(write)) => {
                answer(id, Some(WriteOutcome::Requested(Box::new(write)))).map(Some)
            }
            (IdempotencyDecision::Running, _) => Err(WriteError::StillRunning),
            (IdempotencyDecision::Undecided(id), _) => Err(WriteError::Undecided(id)),
            (IdempotencyDecision::OtherCommand, _) => Err(WriteError::OtherCommand),
            (IdempotencyDecision::First | IdempotencyDecision::Answered(..), _) => Ok(None),
        }
    }

    /// The record of this request, if it has an idempotency key.
    fn new_record(&self, request: &Request<'_>, write: WriteId) -> Option<IdempotencyRecord> {
        let (now, tick) = (self.ports.clock.now(), self.ports.timer.tick());
        request.scope.clone().map(|scope| IdempotencyRecord {
            scope,
            slot: request.command.slot.clone(),
            write,
            version_without_event: None,
            answer_deadline: now.after(request.deadline.0.saturating_sub(tick.0)),
            expires_at: now.after(self.settings.limits.idempotency_retention),
        })
    }

    fn decide(
        &self,
        request: &Request<'_>,
        known: &LockSnapshot,
    ) -> Result<WriteDecision, Rejection> {
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let (command, principal) = (request.command, request.principal);
        policy::decide_write(Some(known), command, principal, &*self.access, limits, now)
    }

    /// Steps 1 and 2. The snapshot that was loaded before the queue is used until a save finds it stale.
    async fn prepare(
        &self,
        request: &Request<'_>,
        mut snapshot: LockSnapshot,
    ) -> Result<Preparation, WriteError> {
        let id = WriteId::from_u128(self.ports.ids.next_id());
        let mut tokens = ClientTokens::new(id, Epoch(1));
        loop {
            let undecided = snapshot.prepared().map(|w| w.id);
            match self.decide(request, &snapshot)? {
                WriteDecision::AlreadyOpen(same) => {
                    let receipt = receipt_without_event(same, snapshot.lock.version);
                    let Some(record) = self.new_record(request, receipt.write) else {
                        return Ok(Preparation::Answered(receipt));
                    };
                    let record = IdempotencyRecord {
                        version_without_event: Some(receipt.version),
                        ..record
                    };
                    if self.save_record(&snapshot, record).await? {
                        return Ok(Preparation::Answered(receipt));
                    }
                }
                WriteDecision::Write(_) if undecided.is_some() => {
                    self.sleep(self.jittered(PREPARED_POLL_INTERVAL)).await;
                }
                WriteDecision::Write(permitted) => {
                    let version = match snapshot.shadow_version {
                        Some(version) => version,
                        None => self.first_version(&permitted.thing, &mut tokens).await?,
                    };
                    let saving = self.save_intent(request, &permitted, snapshot, id);
                    if let Some((write, snapshot)) = saving.await? {
                        let supersedes = permitted.supersedes;
                        let prepared = PreparedWrite {
                            write,
                            supersedes,
                            snapshot: Some(snapshot),
                            tokens,
                        };
                        return Ok(Preparation::Write(Box::new(prepared), version));
                    }
                }
            }
            if self.ports.timer.tick() >= request.queue_deadline {
                return Err(WriteError::Busy { undecided });
            }
            let known = self.ports.locks.load(request.command.lock).await?;
            snapshot = known.ok_or(Rejection::LockNotFound)?;
            if let Some(earlier) = self.earlier_answer(request).await? {
                return Ok(Preparation::Answered(earlier));
            }
        }
    }

    /// Stores a record of an answer without an event. `false`: the lock has changed, decide again.
    async fn save_record(
        &self,
        snapshot: &LockSnapshot,
        record: IdempotencyRecord,
    ) -> Result<bool, WriteError> {
        let save = policy::record_without_event(snapshot, record, self.ports.clock.now());
        match self.ports.locks.save(save).await {
            Ok(()) => Ok(true),
            // If the save was made all the same, the next read finds the record.
            Err(RepoError::Stale | RepoError::Unknown(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Step 2. Returns the prepared write and the lock after it. `None`: the lock has changed, decide again.
    async fn save_intent(
        &self,
        request: &Request<'_>,
        permitted: &Permitted,
        mut snapshot: LockSnapshot,
        id: WriteId,
    ) -> Result<Option<(Write, LockSnapshot)>, WriteError> {
        let intent = Intent {
            worker: self.worker,
            epoch: Epoch(1),
            lease: self.settings.lease,
        };
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let new = NewWrite {
            id,
            thing: &permitted.thing,
            slot: &request.command.slot,
            cause: Cause::new(request.principal, request.id.clone()),
            intent,
        };
        let (write, mut save) = policy::prepare(&snapshot, &new, limits, now);
        save.idempotency = self.new_record(request, id).map(Box::new);
        match self.ports.locks.save(save).await {
            Ok(()) => {
                snapshot.revision = snapshot.revision.next();
                snapshot.unfinished.push(write.clone());
                Ok(Some((write, snapshot)))
            }
            Err(RepoError::Stale) => Ok(None),
            // If the intent becomes visible later, no update was sent for it, and the recoverer aborts it.
            Err(RepoError::Unknown(_)) => {
                self.sleep(self.jittered(PREPARED_POLL_INTERVAL)).await;
                let known = self.ports.locks.load(request.command.lock).await?;
                let ours = known.and_then(|s| s.unfinished(id).cloned().map(|w| (w, s)));
                Ok(ours.filter(|(w, _)| w.intent() == Some(&intent)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Step 1: the version of a shadow that was never read before.
    async fn first_version(
        &self,
        thing: &ThingName,
        tokens: &mut ClientTokens,
    ) -> Result<ShadowVersion, WriteError> {
        match self.read_or_create_shadow(thing, tokens).await {
            Ok(found) => Ok(found.version),
            Err(error) => Err(WriteError::NotUpdated(reason_of(error))),
        }
    }
}

/// A request with its deadlines.
struct Request<'a> {
    command: &'a WriteKey,
    principal: &'a Principal,
    id: Option<RequestId>,
    scope: Option<IdempotencyScope>,
    deadline: Tick,
    /// When the request must have reached step 3.
    queue_deadline: Tick,
}

/// The result of steps 1 and 2.
enum Preparation {
    /// The intent is saved, and the shadow has this version.
    Write(Box<PreparedWrite>, ShadowVersion),
    Answered(WriteReceipt),
}

/// The receipt of a request that appended no event.
fn receipt_without_event(write: WriteId, version: LockVersion) -> WriteReceipt {
    WriteReceipt {
        write,
        version,
        event: None,
    }
}

/// The answer of the request for write `id`. `None`: its outcome was not known at the deadline.
fn answer(id: WriteId, outcome: Option<WriteOutcome>) -> Result<WriteReceipt, WriteError> {
    match outcome {
        Some(WriteOutcome::Requested(write)) => {
            let event = write.requested_event();
            let version = event.as_ref().map_or(LockVersion(0), |e| e.version);
            Ok(WriteReceipt {
                write: id,
                version,
                event,
            })
        }
        Some(WriteOutcome::Aborted(reason)) => Err(WriteError::NotUpdated(reason)),
        None => Err(WriteError::Undecided(id)),
    }
}
