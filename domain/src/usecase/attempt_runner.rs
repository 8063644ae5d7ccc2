//! Runs an [`Attempt`] against the ports until the outcome of its write is known.

use super::attempt::{Attempt, Observation, Step};
use super::key_writes::{ClientTokens, KeyWrites};
use super::shadow_calls::reason_of;
use crate::model::{
    FailureReason, LockSnapshot, Save, ShadowChange, ShadowEntry, ShadowVersion, ThingName, Write,
    WriteId, WriteState,
};
use crate::policy;
use crate::ports::{RepoError, ShadowError};

/// A prepared write whose intent this process holds.
pub(super) struct PreparedWrite {
    pub(super) write: Write,
    pub(super) supersedes: Vec<WriteId>,
    /// The lock after the write was prepared; `None`: it has to be loaded.
    pub(super) snapshot: Option<LockSnapshot>,
    pub(super) tokens: ClientTokens,
}

/// How an intent was resolved.
pub(super) enum WriteOutcome {
    Requested(Box<Write>),
    Aborted(FailureReason),
}

impl KeyWrites {
    /// Executes steps until the outcome is known. The caller bounds the time.
    pub(super) async fn execute(
        &self,
        mut prepared: PreparedWrite,
        (mut attempt, first): (Attempt, Step),
    ) -> WriteOutcome {
        let mut step = first;
        let mut pause = self.settings.first_backoff;
        loop {
            let observation = match step {
                Step::Send(version) => self.send(&mut prepared, version).await,
                Step::Read => self.read_entry(&mut prepared).await,
                Step::Create => {
                    let create = ShadowChange::create(prepared.tokens.next());
                    self.observe_update(&prepared.write.thing, create).await
                }
                Step::CheckOwnership => match self.load_if_owned(&prepared.write).await {
                    Ok(Some(_)) => Observation::Owned,
                    Ok(None) => Observation::NotOwned,
                    Err(_) => Observation::ReadFailed,
                },
                Step::Fence(version) => {
                    let fence = ShadowChange::fence(version, prepared.tokens.next());
                    self.observe_update(&prepared.write.thing, fence).await
                }
                Step::Pause => {
                    self.sleep(self.jittered(pause)).await;
                    pause = (pause * 2).min(self.settings.max_backoff);
                    // A report may have settled the write meanwhile, while the shadow still cannot be read.
                    match self.load_if_owned(&prepared.write).await {
                        Ok(None) => Observation::NotOwned,
                        Ok(Some(_)) | Err(_) => Observation::Paused,
                    }
                }
                Step::Commit(version) => return self.commit(prepared, version).await,
                Step::Abort(reason, version) => return self.abort(prepared, reason, version).await,
                Step::ReadOutcome => return self.recorded_outcome(&prepared.write).await,
            };
            step = attempt.next(observation);
        }
    }

    /// Step 3: puts the entry and removes the entries that it supersedes. The same update also removes results that are
    /// recorded already, and entries of those writes that the lock did not remove. This saves a request.
    async fn send(&self, prepared: &mut PreparedWrite, version: ShadowVersion) -> Observation {
        let cleared = prepared.uncleared();
        let change = ShadowChange {
            put: Some(ShadowEntry::from(&prepared.write)),
            remove: [prepared.supersedes.as_slice(), &cleared].concat(),
            clear_results: cleared,
            expected: Some(version),
            token: prepared.tokens.next(),
        };
        self.observe_update(&prepared.write.thing, change).await
    }

    /// Looks for the write on the shadow. Results on the shadow are settled first, so that a write which the lock has executed is
    /// not superseded.
    async fn read_entry(&self, prepared: &mut PreparedWrite) -> Observation {
        let thing = &prepared.write.thing;
        match self.read_shadow(thing, &mut prepared.tokens).await {
            Ok(Some(found)) => {
                let (version, present) = (found.version, found.has_write(prepared.write.id));
                match self.settle_shadow(thing, found).await {
                    Ok(()) => Observation::ShadowRead { version, present },
                    Err(_) => Observation::ReadFailed,
                }
            }
            Ok(None) => Observation::ShadowMissing,
            Err(_) => Observation::ReadFailed,
        }
    }

    async fn observe_update(&self, thing: &ThingName, change: ShadowChange) -> Observation {
        match self.update_shadow(thing, change).await {
            Ok(version) => Observation::Accepted(version),
            Err(ShadowError::Conflict) => Observation::Conflict,
            Err(ShadowError::Unknown(_)) => Observation::Unknown,
            Err(error) => Observation::NotApplied(reason_of(error)),
        }
    }

    /// The lock, if the intent of the write is still open and has our epoch.
    async fn load_if_owned(&self, write: &Write) -> Result<Option<LockSnapshot>, RepoError> {
        let snapshot = self.ports.locks.load(write.lock).await?;
        Ok(snapshot.filter(|s| {
            let stored = s.unfinished(write.id).and_then(Write::intent);
            stored
                .zip(write.intent())
                .is_some_and(|(a, b)| a.epoch == b.epoch)
        }))
    }

    /// Step 4. The shadow has accepted the write, so it is recorded as soon as the store can save.
    async fn commit(&self, mut prepared: PreparedWrite, accepted: ShadowVersion) -> WriteOutcome {
        let cleared = prepared.uncleared();
        let id = prepared.write.id;
        let save = |snapshot: &LockSnapshot| {
            let write = snapshot.unfinished(id).unwrap_or(&prepared.write);
            let (limits, now) = (&self.settings.limits, self.ports.clock.now());
            let (sent, save) = policy::commit(snapshot, write, accepted, &cleared, limits, now);
            (WriteOutcome::Requested(Box::new(sent)), save)
        };
        let known = prepared.snapshot.take();
        self.close(&prepared.write, known, save).await
    }

    /// Step 5.
    async fn abort(
        &self,
        mut prepared: PreparedWrite,
        reason: FailureReason,
        version: Option<ShadowVersion>,
    ) -> WriteOutcome {
        let save = |snapshot: &LockSnapshot| {
            let now = self.ports.clock.now();
            let save = policy::abort(snapshot, &prepared.write, &reason, version, now);
            (WriteOutcome::Aborted(reason.clone()), save)
        };
        let known = prepared.snapshot.take();
        self.close(&prepared.write, known, save).await
    }

    /// Closes our intent with a save. Loads the lock and decides again as long as the save is stale or fails. If a settled report
    /// or another process has closed the intent, or another process holds it, waits for the recorded outcome.
    async fn close(
        &self,
        write: &Write,
        mut known: Option<LockSnapshot>,
        save: impl Fn(&LockSnapshot) -> (WriteOutcome, Save),
    ) -> WriteOutcome {
        let mut pause = self.settings.first_backoff;
        loop {
            let snapshot = match known.take() {
                Some(snapshot) => Ok(Some(snapshot)),
                None => self.load_if_owned(write).await,
            };
            match snapshot {
                Ok(None) => return self.recorded_outcome(write).await,
                Ok(Some(snapshot)) => {
                    let (outcome, save) = save(&snapshot);
                    match self.ports.locks.save(save).await {
                        Ok(()) => return outcome,
                        Err(RepoError::Stale) => continue,
                        // Loading the lock again shows whether a save with an unknown outcome was made.
                        Err(_) => {}
                    }
                }
                Err(_) => {}
            }
            self.sleep(self.jittered(pause)).await;
            pause = (pause * 2).min(self.settings.max_backoff);
        }
    }

    /// Waits for the recorded outcome of an intent that we no longer hold: another process has taken it over, or it is closed.
    async fn recorded_outcome(&self, write: &Write) -> WriteOutcome {
        loop {
            if let Ok(Some(stored)) = self.ports.history.write(write.id).await {
                match stored.state {
                    WriteState::Aborted { reason, .. } => return WriteOutcome::Aborted(reason),
                    _ if stored.requested.is_some() => {
                        return WriteOutcome::Requested(Box::new(stored));
                    }
                    _ => {}
                }
            }
            self.sleep(self.jittered(self.settings.max_backoff)).await;
        }
    }
}

impl PreparedWrite {
    /// Writes whose recorded results are still on the shadow.
    fn uncleared(&self) -> Vec<WriteId> {
        let uncleared = self.snapshot.iter().flat_map(|s| &s.uncleared);
        uncleared.map(|w| w.id).collect()
    }
}
