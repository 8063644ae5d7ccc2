//! What keeps a lock tidy when nobody asks: reading the shadows of open writes, expiring, clearing
//! recorded results; and withdrawing, which ends a write the way expiry does.

use std::pin::pin;
use std::time::Duration;

use super::audit::Audited;
use super::deadline::bounded;
use super::read::ReadError;
use super::settle::SettleError;
use super::write_key::reason_of;
use super::{KeyWrites, Tokens};
use crate::lock::LockSnapshot;
use crate::ports::{
    DeviceOutcome, DeviceReport, DeviceResult, Due, RepoError, ShadowChange, ShadowEntry,
    ShadowError, ShadowSnapshot, Standing,
};
use crate::principal::Principal;
use crate::reason::FailureReason;
use crate::rules::{self, Ending, Rejection};
use crate::values::{LockId, ShadowVersion, ThingName, Tick, Timestamp, WriteId};
use crate::write::{Write, WriteState};

/// What one round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Writes that were looked at.
    pub attended: usize,
    /// Writes that could not be finished with, because the shadow or the store did not answer. They
    /// stay due.
    pub failed: usize,
    /// Where the next round goes on, if this one ended at its limit.
    pub next: Option<Due>,
}

/// Why a write was not taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawError {
    /// Rule 1 stands against it. Nothing happened.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The lock has no such write.
    #[error("the write does not exist")]
    NotFound,
    /// Other writes of the lock are in progress. Nothing happened.
    #[error("other writes of the lock are in progress")]
    Busy,
    /// It is prepared, and whether the shadow has it is not known yet. Nothing happened.
    #[error("the outcome of the write itself is not known yet")]
    Prepared,
    /// It is over, as it says.
    #[error("the write is over")]
    AlreadyEnded(Box<Write>),
    /// The shadow did not take the update. Nothing is recorded.
    #[error("the shadow could not be updated: {0}")]
    NotUpdated(FailureReason),
    /// The deadline came before the outcome was known. The write stays open, and asking again is safe.
    #[error("the outcome is not known yet")]
    Undecided,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
}

impl From<ReadError> for WithdrawError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => Self::Rejected(rejection),
            ReadError::WriteNotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

/// What was attended to, and with which success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attended {
    /// Nothing is left to do at this moment.
    Done,
    /// Nothing is left to do for the write. Its shadow had entries that are nobody's, which an audit has taken off.
    Repaired(Audited),
    /// The shadow or the store did not answer as it should. The write stays due.
    Failed,
}

impl KeyWrites {
    /// Attends to at most `limit` writes that are due, one after the other. Run it every second, going on
    /// from `after` while the last round says so; or list them with [`KeyWrites::due`] and run
    /// [`KeyWrites::attend`] for several locks at once.
    ///
    /// # Errors
    /// The store could not be asked what is due.
    pub async fn maintain(
        &self,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Maintained, RepoError> {
        self.round(false, after, limit).await
    }

    /// As [`KeyWrites::maintain`], for every write that is not done with, due or not: at start-up, and whenever
    /// reports may have been missed.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn look_at_all(
        &self,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Maintained, RepoError> {
        self.round(true, after, limit).await
    }

    /// At most `limit` writes that are due; with `all` those, too, that are to be looked at only later.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn due(
        &self,
        all: bool,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError> {
        let history = &self.ports.history;
        if all {
            return history.due(Timestamp::MAX, after, limit).await;
        }
        let now = self.ports.clock.now();
        let mut due = history.due(now, after, limit).await?;
        let room = limit - due.len();
        if room > 0 {
            // Nothing is put off for longer than a time to live. A later moment is of a clock that was ahead.
            let latest = now.after(self.longest_interval());
            let later = after.max(Some((latest, WriteId::from_u128(u128::MAX))));
            due.extend(history.due(Timestamp::MAX, later, room).await?);
        }
        Ok(due)
    }

    /// For how long maintenance puts off its next look at a write at the most, with room for clocks that run apart.
    fn longest_interval(&self) -> Duration {
        let limits = &self.settings.limits;
        let longest = limits.time_to_live.max(limits.clear_within);
        longest.max(self.settings.request) + limits.confirm_within
    }

    /// Does for a write what there is to do: an open one past its time to live expires, another open one has
    /// its shadow read, a settled one has its result cleared, and one that ended without the lock's word gets
    /// a last look. Ends within [`super::Settings::request`].
    pub async fn attend(&self, write: &Write) -> Attended {
        let deadline = self.deadline(self.settings.request);
        let attending = async {
            match self.tidy(write).await {
                Tidied::Done => Attended::Done,
                Tidied::Failed => Attended::Failed,
                Tidied::UnknownEntries => match self.audit(write.lock, true).await {
                    Ok(audited) if audited.findings.is_empty() => Attended::Done,
                    Ok(audited) => Attended::Repaired(audited),
                    Err(_) => Attended::Failed,
                },
            }
        };
        let attended = bounded(&*self.ports.timer, deadline, pin!(attending)).await;
        attended.unwrap_or(Attended::Failed)
    }

    /// Deletes at most `limit` kept answers and at most `limit` writes whose time is over, and answers how many of both.
    /// Run it now and then, again at once while it finds many.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn forget(&self, limit: usize) -> Result<usize, RepoError> {
        let now = self.ports.clock.now();
        let ended_before = now.before(self.settings.limits.keep_writes);
        self.ports.history.forget(now, ended_before, limit).await
    }

    /// How much is unfinished at the moment.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn standing(&self) -> Result<Standing, RepoError> {
        let (now, span) = (self.ports.clock.now(), self.settings.limits.confirm_within);
        let recently = now.before(span)..=now.after(span);
        self.ports.history.standing(recently).await
    }

    /// Takes an open write of the lock back: off the shadow, then WITHDRAWN. One that was taken back before is
    /// answered as it is. A lock that is at the write already may finish it all the same, and its report is then
    /// recorded as late. The principal needs the same access as for writing a key.
    ///
    /// # Errors
    /// See [`WithdrawError`].
    pub async fn withdraw(
        &self,
        lock: LockId,
        id: WriteId,
        principal: &Principal,
    ) -> Result<Write, WithdrawError> {
        let deadline = self.deadline(self.settings.request);
        self.withdraw_by(lock, id, principal, deadline).await
    }

    /// As [`KeyWrites::withdraw`], for a request that is to be answered by this moment.
    ///
    /// # Errors
    /// See [`WithdrawError`].
    pub async fn withdraw_by(
        &self,
        lock: LockId,
        id: WriteId,
        principal: &Principal,
        deadline: Tick,
    ) -> Result<Write, WithdrawError> {
        let deadline = self.request_deadline(Some(deadline));
        let timer = &*self.ports.timer;
        let permitted = self.read_write(lock, id, principal);
        let found = bounded(timer, deadline, pin!(permitted)).await;
        let no_answer = || ReadError::Store(RepoError::Unavailable("no answer in time".into()));
        let found = found.unwrap_or_else(|| Err(no_answer()))?;
        let ended = bounded(timer, deadline, pin!(self.end(&found, Ending::Withdrawn))).await;
        match ended.unwrap_or(Err(WithdrawError::Undecided)) {
            Err(WithdrawError::AlreadyEnded(write))
                if matches!(write.state, WriteState::Withdrawn { .. }) =>
            {
                Ok(*write)
            }
            ended => ended,
        }
    }

    async fn round(
        &self,
        all: bool,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Maintained, RepoError> {
        let due = self.due(all, after, limit).await?;
        let mut done = Maintained::default();
        for write in &due {
            done.attended += 1;
            done.failed += usize::from(self.attend(write).await == Attended::Failed);
        }
        if due.len() == limit {
            done.next = due.last().and_then(|w| w.attention.map(|at| (at, w.id)));
        }
        Ok(done)
    }

    async fn tidy(&self, write: &Write) -> Tidied {
        let done = |done| if done { Tidied::Done } else { Tidied::Failed };
        if write.has_uncleared_result() {
            return done(self.clear(write).await.is_ok());
        }
        if !write.is_open() {
            return done(self.last_look(write).await.is_ok());
        }
        if self.ports.clock.now() < write.expires_at {
            return self.look(write).await.unwrap_or(Tidied::Failed);
        }
        match self.end(write, Ending::Expired).await {
            Ok(_) | Err(WithdrawError::AlreadyEnded(_)) => Tidied::Done,
            Err(_) => Tidied::Failed,
        }
    }

    /// Settles what stands on the write's shadow, and takes a result off that cannot be read. A write that is still open
    /// then and has no entry there has lost it (a withdrawal that was cut short, a deleted shadow): it is put back.
    pub(super) async fn look(&self, write: &Write) -> Result<Tidied, AttendError> {
        let mut tokens = self.tokens();
        let found = match self.read_shadow(&write.thing, &mut tokens).await? {
            Some(found) => found,
            None => {
                let create = ShadowChange::create(tokens.next());
                let version = self.update_shadow(&write.thing, create).await?;
                ShadowSnapshot {
                    version,
                    ..ShadowSnapshot::default()
                }
            }
        };
        let (mut version, lost) = (found.version, !found.entries.contains(&write.id));
        let unreadable = DeviceResult {
            write: write.id,
            outcome: DeviceOutcome::Unreadable,
        };
        let (entries, unreadable) = (found.entries.clone(), found.results.contains(&unreadable));
        self.settle_from(&write.thing, found).await?;
        let Some(snapshot) = self.ports.locks.load(write.lock).await? else {
            return Ok(Tidied::Done);
        };
        // Read after the entries: an entry is always younger than its intent.
        let tidied = match has_unknown(&entries, &snapshot, &write.thing) {
            true => Tidied::UnknownEntries,
            false => Tidied::Done,
        };
        let Some(open) = snapshot.unfinished(write.id).filter(|w| w.is_open()) else {
            return Ok(tidied);
        };
        if unreadable {
            let change = ShadowChange {
                clear_results: vec![write.id],
                ..ShadowChange::fence(version, tokens.next())
            };
            version = self.update_shadow(&write.thing, change).await?;
        }
        let now = self.ports.clock.now();
        if !lost {
            let later = open.attention.is_some_and(|at| at > now)
                && !rules::is_put_off_too_far(open, &self.settings.limits, now);
            if later && snapshot.shadow_version == Some(version) {
                // It was read early, and nothing is new.
                return Ok(tidied);
            }
            let save = rules::postpone(&snapshot, open, version, &self.settings.limits, now);
            self.ports.locks.save(save).await?;
            return Ok(tidied);
        }
        // Whoever is taking the entry off at this moment has loaded the lock before: this save makes theirs
        // come too late, or theirs this one, and then the entry is not put back.
        let soon = now.after(self.settings.request);
        let save = rules::revisit(&snapshot, open, soon, now);
        self.ports.locks.save(save).await?;
        if snapshot.prepared().is_some() {
            // The shadow is in the hands of another write, which may take this one's place.
            return Ok(Tidied::Done);
        }
        let put = Some(ShadowEntry::from(open));
        let change = ShadowChange {
            put,
            ..ShadowChange::fence(version, tokens.next())
        };
        self.update_shadow(&write.thing, change).await?;
        Ok(tidied)
    }

    /// Settles what stands on the shadow of a write that ended without the lock's word, and takes its
    /// remains off.
    async fn last_look(&self, write: &Write) -> Result<(), AttendError> {
        // Read early, the lock may still be at it, and the last look is yet to come.
        let early = write
            .attention
            .is_some_and(|at| at > self.ports.clock.now());
        let mut tokens = self.tokens();
        let mut version = None;
        if let Some(found) = self.read_shadow(&write.thing, &mut tokens).await? {
            let remains = found.knows(write.id);
            version = Some(found.version);
            self.settle_from(&write.thing, found).await?;
            if self.is_settled(write.id).await? {
                return Ok(());
            }
            if remains && !early {
                // On the version that was read, where the lock has said no more than that it is at it.
                let change = ShadowChange {
                    remove: vec![write.id],
                    clear_results: vec![write.id],
                    expected: version,
                    ..ShadowChange::create(tokens.next())
                };
                version = Some(self.update_shadow(&write.thing, change).await?);
            }
        }
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let too_far = rules::is_put_off_too_far(write, limits, now);
        if early && !too_far {
            return Ok(());
        }
        let Some(snapshot) = self.ports.locks.load(write.lock).await? else {
            return Ok(());
        };
        // Read after the snapshot, so that any later change of it makes the save stale.
        let Some(ended) = self.ports.history.write(write.id).await? else {
            return Ok(());
        };
        if ended.is_settled_by_lock() || ended.attention.is_none() {
            return Ok(());
        }
        let save = match early {
            true => rules::revisit(&snapshot, &ended, now.after(limits.confirm_within), now),
            false => rules::rest(&snapshot, &ended, version, now),
        };
        Ok(self.ports.locks.save(save).await?)
    }

    async fn is_settled(&self, id: WriteId) -> Result<bool, RepoError> {
        let found = self.ports.history.write(id).await?;
        Ok(found.is_none_or(|w| w.is_settled_by_lock()))
    }

    /// Takes the recorded results of the write's lock off its shadow, and entries that the lock has left. By id, so no
    /// version is needed.
    async fn clear(&self, write: &Write) -> Result<(), AttendError> {
        let Some(snapshot) = self.ports.locks.load(write.lock).await? else {
            return Ok(());
        };
        let same_thing = snapshot.uncleared.iter().filter(|w| w.thing == write.thing);
        let ids: Vec<WriteId> = same_thing.map(|w| w.id).collect();
        let token = self.tokens().next();
        let change = ShadowChange {
            remove: ids.clone(),
            clear_results: ids.clone(),
            ..ShadowChange::create(token)
        };
        let version = self.update_shadow(&write.thing, change).await?;
        let save = rules::clear_results(&snapshot, &ids, version, self.ports.clock.now());
        Ok(self.ports.locks.save(save).await?)
    }

    pub(super) async fn settle_from(
        &self,
        thing: &ThingName,
        found: ShadowSnapshot,
    ) -> Result<(), RepoError> {
        let report = DeviceReport {
            thing: thing.clone(),
            shadow_version: Some(found.version),
            results: found.results,
            entries: found.entries,
        };
        match self.settle(&report).await {
            Ok(_) => Ok(()),
            Err(SettleError(error)) => Err(error),
        }
    }

    /// Reads first: a result on the shadow settles the write. Else the entry is removed conditionally
    /// on what was read, so that a result which comes meanwhile is not lost, and only an accepted
    /// removal is recorded.
    async fn end(&self, write: &Write, ending: Ending) -> Result<Write, WithdrawError> {
        let (timer, turn) = (&*self.ports.timer, self.deadline(self.settings.turn));
        let _turn = self
            .turns
            .take(write.lock, timer, turn)
            .await
            .ok_or(WithdrawError::Busy)?;
        let mut tokens = self.tokens();
        let mut pause = self.settings.first_pause;
        // Once the entry may be off, nothing but a recorded end is a good answer.
        let mut may_be_off = false;
        loop {
            match self.end_once(write, ending, &mut tokens).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(EndError::Over(error)) => return Err(error),
                Err(EndError::RemovedOnly) => may_be_off = true,
                // Of a conditional removal a conflict tells no more than that the shadow has moved.
                Err(EndError::Failed(AttendError::Shadow(ShadowError::Conflict))) => {}
                Err(EndError::Failed(AttendError::Shadow(ShadowError::Unknown(_)))) => {
                    may_be_off = true;
                }
                Err(EndError::Failed(_)) if may_be_off => {}
                Err(EndError::Failed(AttendError::Store(error))) => return Err(error.into()),
                Err(EndError::Failed(AttendError::Shadow(error))) => {
                    return Err(WithdrawError::NotUpdated(reason_of(error)));
                }
            }
            self.rest(self.jittered(pause)).await;
            pause = (pause * 2).min(self.settings.longest_pause);
        }
    }

    /// One try. `None`: the lock has changed meanwhile, or had something to say.
    async fn end_once(
        &self,
        write: &Write,
        ending: Ending,
        tokens: &mut Tokens,
    ) -> Result<Option<Write>, EndError> {
        let snapshot = self.ports.locks.load(write.lock).await?;
        let Some((snapshot, open)) = snapshot.and_then(|s| {
            let open = s.unfinished(write.id).filter(|w| w.is_open()).cloned();
            open.map(|open| (s, open))
        }) else {
            return Err(EndError::Over(self.why_not_open(write.id).await?));
        };
        if ending == Ending::Withdrawn && self.is_unattended(&open) {
            let now = self.ports.clock.now();
            let soon = now.after(self.settings.request);
            let save = rules::revisit(&snapshot, &open, soon, now);
            self.ports.locks.save(save).await.or_else(stale_is_fine)?;
            return Ok(None);
        }
        let Some(version) = self.remove_entry(&open, tokens).await? else {
            return Ok(None);
        };
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let (ended, save) = rules::end(&snapshot, &open, ending, version, limits, now);
        // The entry is off, so the end is recorded as soon as the store lets us.
        match self.ports.locks.save(save).await {
            Ok(()) => Ok(Some(ended)),
            Err(_) => Err(EndError::RemovedOnly),
        }
    }

    /// Nobody would soon notice that the entry is gone, if this withdrawal were cut short.
    fn is_unattended(&self, open: &Write) -> bool {
        let soon = self.ports.clock.now().after(self.settings.request);
        open.attention.is_none_or(|at| at > soon)
    }

    async fn why_not_open(&self, id: WriteId) -> Result<WithdrawError, RepoError> {
        Ok(match self.ports.history.write(id).await? {
            None => WithdrawError::NotFound,
            Some(write) if write.intent().is_some() => WithdrawError::Prepared,
            Some(write) if write.is_open() => WithdrawError::Busy,
            Some(write) => WithdrawError::AlreadyEnded(Box::new(write)),
        })
    }

    /// `None`: the lock had something to say, which is settled now.
    async fn remove_entry(
        &self,
        write: &Write,
        tokens: &mut Tokens,
    ) -> Result<Option<ShadowVersion>, AttendError> {
        let found = self.read_shadow(&write.thing, tokens).await?;
        let Some(found) = found else {
            // A shadow that is gone has no entry; one that we make holds our place in its versions.
            return Ok(Some(
                self.update_shadow(&write.thing, ShadowChange::create(tokens.next()))
                    .await?,
            ));
        };
        let version = found.version;
        let mut clear_results = Vec::new();
        if found.results.iter().any(|r| r.write == write.id) {
            self.settle_from(&write.thing, found).await?;
            if !matches!(self.ports.history.write(write.id).await?, Some(w) if w.is_open()) {
                return Ok(None);
            }
            // The lock is at it, and says so to nobody any more.
            clear_results.push(write.id);
        }
        let change = ShadowChange {
            remove: vec![write.id],
            clear_results,
            ..ShadowChange::fence(version, tokens.next())
        };
        Ok(Some(self.update_shadow(&write.thing, change).await?))
    }
}

/// What tidying came to.
pub(super) enum Tidied {
    Done,
    Failed,
    /// Entries stand on the shadow that are none of the lock's writes.
    UnknownEntries,
}

/// Whether one of these entries of the thing's shadow is of no write that the lock has to do with.
fn has_unknown(entries: &[WriteId], snapshot: &LockSnapshot, thing: &ThingName) -> bool {
    let live = snapshot.unfinished.iter().chain(&snapshot.uncleared);
    let known = |id: &WriteId| live.clone().any(|write| write.id == *id);
    snapshot.lock.thing.as_ref() == Some(thing) && !entries.iter().all(known)
}

fn stale_is_fine(error: RepoError) -> Result<(), RepoError> {
    match error {
        RepoError::Stale => Ok(()),
        other => Err(other),
    }
}

/// Why a try to end a write did not end it.
enum EndError {
    /// It cannot be ended any more.
    Over(WithdrawError),
    /// Its entry is off the shadow, and that could not be recorded.
    RemovedOnly,
    Failed(AttendError),
}

impl<E: Into<AttendError>> From<E> for EndError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AttendError {
    #[error(transparent)]
    Store(#[from] RepoError),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
}
