//! Runs an [`Attempt`] against the ports, and takes over the attempts of others.

use std::pin::pin;

use super::attempt::{Attempt, Observed, Step};
use super::deadline::bounded;
use super::write_key::reason_of;
use super::{KeyWrites, Tokens};
use crate::lock::LockSnapshot;
use crate::ports::{RepoError, Save, ShadowChange, ShadowEntry, ShadowError, ShadowSnapshot};
use crate::reason::FailureReason;
use crate::rules;
use crate::values::{ShadowVersion, ThingName, WriteId};
use crate::write::{Write, WriteState};

/// A prepared write in somebody's hands.
pub(super) struct Task {
    pub(super) write: Write,
    pub(super) supersedes: Vec<WriteId>,
    /// The lock as it was after the prepare; `None`: load it.
    pub(super) snapshot: Option<LockSnapshot>,
    pub(super) tokens: Tokens,
}

/// How an intent ended.
pub(super) enum Fate {
    Requested(Box<Write>),
    Aborted(FailureReason),
}

impl KeyWrites {
    /// Step 8: takes over one intent whose lease has ended and brings it to its end, within
    /// [`super::Settings::request`]. `Ok(None)`: there is none. Run it at start-up and every second.
    ///
    /// # Errors
    /// The store could not be asked. An intent that could not be resolved in time is no error: its
    /// lease ends again.
    pub async fn recover_next(&self) -> Result<Option<WriteId>, RepoError> {
        let claimed = self
            .ports
            .locks
            .claim(self.owner, self.settings.lease)
            .await?;
        let Some(write) = claimed else {
            return Ok(None);
        };
        let Some(intent) = write.intent() else {
            return Ok(Some(write.id));
        };
        let (id, tokens) = (write.id, Tokens::new(write.id, intent.epoch));
        let task = Task {
            write,
            supersedes: Vec::new(),
            snapshot: None,
            tokens,
        };
        let deadline = self.deadline(self.settings.request);
        bounded(
            &*self.ports.timer,
            deadline,
            pin!(self.drive(task, Attempt::of_recoverer())),
        )
        .await;
        Ok(Some(id))
    }

    /// Goes on until the fate is known; the caller sets the deadline.
    pub(super) async fn drive(
        &self,
        mut task: Task,
        (mut attempt, first): (Attempt, Step),
    ) -> Fate {
        let mut step = first;
        let mut pause = self.settings.first_pause;
        loop {
            let observed = match step {
                Step::Send(version) => self.send(&mut task, version).await,
                Step::Read => self.look_for(&mut task).await,
                Step::Create => {
                    let create = ShadowChange::create(task.tokens.next());
                    self.observe_update(&task.write.thing, create).await
                }
                Step::CheckOwnership => match self.owned(&task.write).await {
                    Ok(Some(_)) => Observed::Ours,
                    Ok(None) => Observed::NotOurs,
                    Err(_) => Observed::Unreadable,
                },
                Step::Fence(version) => {
                    let fence = ShadowChange::fence(version, task.tokens.next());
                    self.observe_update(&task.write.thing, fence).await
                }
                Step::Pause => {
                    self.rest(self.jittered(pause)).await;
                    pause = (pause * 2).min(self.settings.longest_pause);
                    Observed::Rested
                }
                Step::Commit(version) => return self.commit(task, version).await,
                Step::Abort(reason, version) => return self.abort(task, reason, version).await,
                Step::ReadFate => return self.fate(&task.write).await,
            };
            step = attempt.next(observed);
        }
    }

    /// Step 3: put the entry, remove what it supersedes and, for free, results already recorded, with entries that the
    /// lock has left.
    async fn send(&self, task: &mut Task, version: ShadowVersion) -> Observed {
        let cleared = task.cleared();
        let change = ShadowChange {
            put: Some(ShadowEntry::from(&task.write)),
            remove: [task.supersedes.as_slice(), &cleared].concat(),
            clear_results: cleared,
            expected: Some(version),
            token: task.tokens.next(),
        };
        self.observe_update(&task.write.thing, change).await
    }

    /// What the lock has reported meanwhile is settled on the way, so that a write which it has done is
    /// not superseded instead.
    async fn look_for(&self, task: &mut Task) -> Observed {
        let thing = &task.write.thing;
        match self.read_shadow(thing, &mut task.tokens).await {
            Ok(Some(found)) => {
                let (version, present) = (found.version, found.knows(task.write.id));
                match self.settle_from(thing, found).await {
                    Ok(()) => Observed::Seen { version, present },
                    Err(_) => Observed::Unreadable,
                }
            }
            Ok(None) => Observed::Missing,
            Err(_) => Observed::Unreadable,
        }
    }

    async fn observe_update(&self, thing: &ThingName, change: ShadowChange) -> Observed {
        match self.update_shadow(thing, change).await {
            Ok(version) => Observed::Accepted(version),
            Err(ShadowError::Conflict) => Observed::Conflict,
            Err(ShadowError::Unknown(_)) => Observed::Unknown,
            Err(error) => Observed::NotApplied(reason_of(error)),
        }
    }

    /// One call, bounded. An update that is given up may still be applied.
    pub(super) async fn update_shadow(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let deadline = self.deadline(self.settings.shadow_call);
        let call = self.ports.shadow.update(thing, change);
        let answer = bounded(&*self.ports.timer, deadline, pin!(call)).await;
        answer.unwrap_or_else(|| Err(ShadowError::Unknown("no answer in time".into())))
    }

    pub(super) async fn read_shadow(
        &self,
        thing: &ThingName,
        tokens: &mut Tokens,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let deadline = self.deadline(self.settings.shadow_call);
        let call = self.ports.shadow.read(thing, tokens.next());
        let answer = bounded(&*self.ports.timer, deadline, pin!(call)).await;
        answer.unwrap_or_else(|| Err(ShadowError::Unknown("no answer in time".into())))
    }

    /// The lock, if the intent is still open and of our epoch.
    async fn owned(&self, write: &Write) -> Result<Option<LockSnapshot>, RepoError> {
        let snapshot = self.ports.locks.load(write.lock).await?;
        Ok(snapshot.filter(|s| {
            let stored = s.unfinished(write.id).and_then(Write::intent);
            stored
                .zip(write.intent())
                .is_some_and(|(a, b)| a.epoch == b.epoch)
        }))
    }

    /// Step 4. The shadow has the write, so nothing but the store can keep it from being recorded.
    async fn commit(&self, mut task: Task, accepted: ShadowVersion) -> Fate {
        let cleared = task.cleared();
        let id = task.write.id;
        let save = |snapshot: &LockSnapshot| {
            let prepared = snapshot.unfinished(id).unwrap_or(&task.write);
            let (limits, now) = (&self.settings.limits, self.ports.clock.now());
            let (sent, save) = rules::commit(snapshot, prepared, accepted, &cleared, limits, now);
            (Fate::Requested(Box::new(sent)), save)
        };
        self.close(&task.write, task.snapshot.take(), save).await
    }

    /// Step 5.
    async fn abort(
        &self,
        mut task: Task,
        reason: FailureReason,
        version: Option<ShadowVersion>,
    ) -> Fate {
        let save = |snapshot: &LockSnapshot| {
            let now = self.ports.clock.now();
            let save = rules::abort(snapshot, &task.write, &reason, version, now);
            (Fate::Aborted(reason.clone()), save)
        };
        self.close(&task.write, task.snapshot.take(), save).await
    }

    /// Closes our intent by a save, whatever else happens to the lock meanwhile; where someone else
    /// has closed it, their word counts.
    async fn close(
        &self,
        write: &Write,
        mut known: Option<LockSnapshot>,
        save: impl Fn(&LockSnapshot) -> (Fate, Save),
    ) -> Fate {
        let mut pause = self.settings.first_pause;
        loop {
            let snapshot = match known.take() {
                Some(snapshot) => Ok(Some(snapshot)),
                None => self.owned(write).await,
            };
            match snapshot {
                Ok(None) => return self.fate(write).await,
                Ok(Some(snapshot)) => {
                    let (fate, save) = save(&snapshot);
                    match self.ports.locks.save(save).await {
                        Ok(()) => return fate,
                        Err(RepoError::Stale) => continue,
                        // Whether an unknown save was made shows when the lock is loaded.
                        Err(_) => {}
                    }
                }
                Err(_) => {}
            }
            self.rest(self.jittered(pause)).await;
            pause = (pause * 2).min(self.settings.longest_pause);
        }
    }

    /// What became of an intent that is not ours any more.
    async fn fate(&self, write: &Write) -> Fate {
        loop {
            if let Ok(Some(stored)) = self.ports.history.write(write.id).await {
                match stored.state {
                    WriteState::Aborted { reason, .. } => return Fate::Aborted(reason),
                    _ if stored.requested.is_some() => return Fate::Requested(Box::new(stored)),
                    _ => {}
                }
            }
            self.rest(self.jittered(self.settings.longest_pause)).await;
        }
    }
}

impl Task {
    fn cleared(&self) -> Vec<WriteId> {
        let uncleared = self.snapshot.iter().flat_map(|s| &s.uncleared);
        uncleared.map(|w| w.id).collect()
    }
}
