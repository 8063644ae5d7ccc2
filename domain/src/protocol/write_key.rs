//! Steps 0 to 2 of a write, and its answer.

use std::pin::pin;
use std::time::Duration;

use super::attempt::Attempt;
use super::deadline::bounded;
use super::drive::{Fate, Task};
use super::{KeyWrites, Tokens};
use crate::event::RecordedEvent;
use crate::lock::LockSnapshot;
use crate::ports::{RepoError, ShadowChange, ShadowError};
use crate::principal::Principal;
use crate::reason::FailureReason;
use crate::rules::{
    self, Decision, KeptAnswer, Permitted, Rejection, Repeat, RequestName, WriteKey,
};
use crate::values::{Epoch, IdempotencyKey, LockVersion, ShadowVersion, ThingName, Tick, WriteId};
use crate::write::{Intent, Write};

/// What a 200 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The write: the new one, or the open one that was found to be the same.
    pub write: WriteId,
    /// The lock's version after the event, or now where there is none.
    pub version: LockVersion,
    /// The `KeyWriteRequested`; `None`: nothing new had to be recorded.
    pub event: Option<RecordedEvent>,
}

/// What a request brings besides its command.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What its client calls it.
    pub name: Option<IdempotencyKey>,
    /// When it is to be answered, by the [`Timer`](crate::ports::Timer). `None`, and any later moment:
    /// [`super::Settings::request`] from now.
    pub deadline: Option<Tick>,
}

/// Why there is no 200.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A rule stands against it. Nothing happened.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The lock's turn did not come in time. Nothing happened.
    #[error("other writes of the lock are in progress")]
    Busy {
        /// The write whose outcome is not known yet, where that is what was waited for.
        undecided: Option<WriteId>,
    },
    /// The shadow does not have the write and never will by this request (I2).
    #[error("the shadow could not be updated: {0}")]
    NotUpdated(FailureReason),
    /// The deadline came before the outcome was known. It resolves by itself (I3).
    #[error("the outcome of write {0} is not known yet")]
    Undecided(WriteId),
    /// An earlier request of the same name is still running. Nothing happened by this one.
    #[error("an earlier request with this key is still running")]
    StillRunning,
    /// An earlier request of the same name wanted something else. Nothing happened by this one.
    #[error("an earlier request with this key wanted something else")]
    OtherCommand,
    /// The store failed before anything was prepared. Nothing happened.
    #[error(transparent)]
    Store(RepoError),
}

/// How long to wait before the store is asked again whose turn it is.
const TURN_POLL: Duration = Duration::from_millis(40);

impl KeyWrites {
    /// Writes a key: decides, prepares, updates the shadow, records. The caller is already known.
    ///
    /// It ends within [`super::Settings::request`], and a little later only where the store itself
    /// does not answer.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_key(
        &self,
        command: &WriteKey,
        principal: &Principal,
    ) -> Result<Written, WriteError> {
        self.write_key_on(command, principal, Terms::default())
            .await
    }

    /// As [`KeyWrites::write_key`], for a request that has a name (I7) or that came a while ago. Asked again under the
    /// same name, it answers what it answered before, for [`rules::Limits::keep_answers`]. What changed nothing is not
    /// kept, and runs again.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_key_on(
        &self,
        command: &WriteKey,
        principal: &Principal,
        terms: Terms,
    ) -> Result<Written, WriteError> {
        let Terms { name, deadline } = terms;
        let name = name.map(|key| RequestName::new(command.lock, principal, key));
        let name = name.as_ref();
        let deadline = self.request_deadline(deadline);
        let turn_deadline = deadline.min(self.deadline(self.settings.turn));
        let timer = &*self.ports.timer;
        let looking = async {
            let first = self.load(command).await?;
            // What was answered before is answered again, whatever stands against it now.
            rules::permit(first.as_ref(), principal)?;
            Ok::<_, WriteError>((self.repeated(command, name).await?, first))
        };
        let looked = bounded(timer, turn_deadline, pin!(looking)).await;
        let (before, first) = looked.unwrap_or(Err(WriteError::Busy { undecided: None }))?;
        if let Some(before) = before {
            return Ok(before);
        }
        match self.decide(first.as_ref(), command, principal)? {
            Decided::Open(written) if name.is_none() => return Ok(written),
            _ => {}
        }
        let _turn = self
            .turns
            .take(command.lock, timer, turn_deadline)
            .await
            .ok_or(WriteError::Busy { undecided: None })?;
        let deadlines = [deadline, turn_deadline];
        let preparing = self.prepare(command, principal, name, first, deadlines);
        let prepared = match bounded(timer, deadline, pin!(preparing)).await {
            Some(prepared) => prepared?,
            None => return Err(WriteError::Busy { undecided: None }),
        };
        match prepared {
            Prepared::Open(written) => Ok(written),
            Prepared::Task(task, version) => {
                let id = task.write.id;
                let fate = self.drive(*task, Attempt::of_request(version));
                answer(id, bounded(timer, deadline, pin!(fate)).await)
            }
        }
    }

    /// What an earlier request of this name was answered, where there was one. The lock has been loaded before: whoever
    /// keeps an answer later than this look at it makes a save on that revision stale.
    async fn repeated(
        &self,
        command: &WriteKey,
        name: Option<&RequestName>,
    ) -> Result<Option<Written>, WriteError> {
        let Some(name) = name else { return Ok(None) };
        let history = &self.ports.history;
        let kept = history.kept_answer(name).await.map_err(WriteError::Store)?;
        let Some(kept) = kept else { return Ok(None) };
        let write = history.write(kept.write).await.map_err(WriteError::Store)?;
        let now = self.ports.clock.now();
        let (slot, request) = (&command.slot, self.settings.request);
        let repeat = rules::decide_repeat(&kept, write.as_ref(), slot, request, now);
        match (repeat, write) {
            (Repeat::Answered(id, Some(version)), _) => Ok(Some(Written {
                write: id,
                version,
                event: None,
            })),
            (Repeat::Answered(id, None), Some(write)) => {
                answer(id, Some(Fate::Requested(Box::new(write)))).map(Some)
            }
            (Repeat::Running, _) => Err(WriteError::StillRunning),
            (Repeat::Undecided(id), _) => Err(WriteError::Undecided(id)),
            (Repeat::OtherCommand, _) => Err(WriteError::OtherCommand),
            (Repeat::First | Repeat::Answered(..), _) => Ok(None),
        }
    }

    fn kept(
        &self,
        command: &WriteKey,
        name: &RequestName,
        written: WriteId,
        deadline: Tick,
    ) -> KeptAnswer {
        let (now, tick) = (self.ports.clock.now(), self.ports.timer.tick());
        KeptAnswer {
            request: name.clone(),
            slot: command.slot.clone(),
            write: written,
            without_event: None,
            answered_by: now.after(deadline.0.saturating_sub(tick.0)),
            until: now.after(self.settings.limits.keep_answers),
        }
    }

    async fn load(&self, command: &WriteKey) -> Result<Option<LockSnapshot>, WriteError> {
        self.ports
            .locks
            .load(command.lock)
            .await
            .map_err(WriteError::Store)
    }

    fn decide(
        &self,
        known: Option<&LockSnapshot>,
        command: &WriteKey,
        principal: &Principal,
    ) -> Result<Decided, WriteError> {
        let limits = &self.settings.limits;
        let decision = rules::decide(known, command, principal, limits, self.ports.clock.now())?;
        Ok(match decision {
            Decision::Write(permitted) => Decided::Write(permitted),
            Decision::AlreadyOpen(write) => Decided::Open(Written {
                write,
                version: known.map_or(LockVersion(0), |k| k.lock.version),
                event: None,
            }),
        })
    }

    /// Steps 1 and 2. The snapshot that was loaded before the turn serves until a save finds it stale.
    async fn prepare(
        &self,
        command: &WriteKey,
        principal: &Principal,
        name: Option<&RequestName>,
        first: Option<LockSnapshot>,
        [deadline, turn_deadline]: [Tick; 2],
    ) -> Result<Prepared, WriteError> {
        let id = WriteId::from_u128(self.ports.ids.next_id());
        let mut tokens = Tokens::new(id, Epoch(1));
        let mut known = first;
        loop {
            let decided = self.decide(known.as_ref(), command, principal)?;
            let Some(snapshot) = known else {
                return Err(WriteError::Rejected(Rejection::LockNotFound));
            };
            let undecided = snapshot.prepared().map(|w| w.id);
            match decided {
                Decided::Open(written) => {
                    let Some(name) = name else {
                        return Ok(Prepared::Open(written));
                    };
                    let kept = KeptAnswer {
                        without_event: Some(written.version),
                        ..self.kept(command, name, written.write, deadline)
                    };
                    if self.keep(&snapshot, kept).await? {
                        return Ok(Prepared::Open(written));
                    }
                }
                Decided::Write(_) if undecided.is_some() => {
                    self.rest(self.jittered(TURN_POLL)).await;
                }
                Decided::Write(permitted) => {
                    let version = match snapshot.shadow_version {
                        Some(version) => version,
                        None => self.first_version(&permitted.thing, &mut tokens).await?,
                    };
                    let kept = name.map(|name| self.kept(command, name, id, deadline));
                    let prepared = self
                        .save_intent(command, principal, &permitted, (snapshot, kept), id)
                        .await?;
                    if let Some((write, snapshot)) = prepared {
                        let supersedes = permitted.supersedes;
                        let task = Task {
                            write,
                            supersedes,
                            snapshot: Some(snapshot),
                            tokens,
                        };
                        return Ok(Prepared::Task(Box::new(task), version));
                    }
                }
            }
            if self.ports.timer.tick() >= turn_deadline {
                return Err(WriteError::Busy { undecided });
            }
            known = self.load(command).await?;
            if let Some(before) = self.repeated(command, name).await? {
                return Ok(Prepared::Open(before));
            }
        }
    }

    /// Whether it could be kept; else the lock has changed, decide again.
    async fn keep(&self, snapshot: &LockSnapshot, kept: KeptAnswer) -> Result<bool, WriteError> {
        let save = rules::keep_without_event(snapshot, kept, self.ports.clock.now());
        match self.ports.locks.save(save).await {
            Ok(()) => Ok(true),
            // Where it was kept all the same, that is found when it is looked for again.
            Err(RepoError::Stale | RepoError::Unknown(_)) => Ok(false),
            Err(error) => Err(WriteError::Store(error)),
        }
    }

    /// `None`: the lock has changed, decide again.
    async fn save_intent(
        &self,
        command: &WriteKey,
        principal: &Principal,
        permitted: &Permitted,
        (mut snapshot, kept): (LockSnapshot, Option<KeptAnswer>),
        id: WriteId,
    ) -> Result<Option<(Write, LockSnapshot)>, WriteError> {
        let intent = Intent {
            owner: self.owner,
            epoch: Epoch(1),
            lease: self.settings.lease,
        };
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let (write, mut save) = rules::prepare(
            &snapshot,
            command,
            permitted,
            principal,
            (id, intent),
            limits,
            now,
        );
        save.kept = kept.map(Box::new);
        match self.ports.locks.save(save).await {
            Ok(()) => {
                snapshot.revision = snapshot.revision.next();
                snapshot.unfinished.push(write.clone());
                Ok(Some((write, snapshot)))
            }
            Err(RepoError::Stale) => Ok(None),
            // An intent that turns up only later has sent nothing: the recoverer ends it.
            Err(RepoError::Unknown(_)) => {
                self.rest(self.jittered(TURN_POLL)).await;
                let known = self.load(command).await?;
                let ours = known.and_then(|s| s.unfinished(id).cloned().map(|w| (w, s)));
                Ok(ours.filter(|(w, _)| w.intent() == Some(&intent)))
            }
            Err(error) => Err(WriteError::Store(error)),
        }
    }

    /// The version of a shadow that we have never seen; it is created where it is missing.
    async fn first_version(
        &self,
        thing: &ThingName,
        tokens: &mut Tokens,
    ) -> Result<ShadowVersion, WriteError> {
        let not_updated = |error| WriteError::NotUpdated(reason_of(error));
        if let Some(found) = self.read_shadow(thing, tokens).await.map_err(not_updated)? {
            return Ok(found.version);
        }
        let create = ShadowChange::create(tokens.next());
        self.update_shadow(thing, create).await.map_err(not_updated)
    }
}

enum Decided {
    Write(Permitted),
    Open(Written),
}

enum Prepared {
    Open(Written),
    Task(Box<Task>, ShadowVersion),
}

fn answer(id: WriteId, fate: Option<Fate>) -> Result<Written, WriteError> {
    match fate {
        Some(Fate::Requested(write)) => {
            let event = write.requested_event();
            let version = event.as_ref().map_or(LockVersion(0), |e| e.version);
            Ok(Written {
                write: id,
                version,
                event,
            })
        }
        Some(Fate::Aborted(reason)) => Err(WriteError::NotUpdated(reason)),
        None => Err(WriteError::Undecided(id)),
    }
}

pub(super) fn reason_of(error: ShadowError) -> FailureReason {
    match error {
        ShadowError::NotApplied { reason, .. } | ShadowError::Refused { reason, .. } => reason,
        ShadowError::Conflict => FailureReason::ShadowConflict,
        ShadowError::Unknown(_) => FailureReason::Unavailable,
    }
}
