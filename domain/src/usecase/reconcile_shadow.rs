//! Reading of a write's shadow, and settling, restoring or clearing what it shows.

use super::key_writes::{ClientTokens, KeyWrites};
use super::settle_report::SettleError;
use crate::model::{
    DeviceOutcome, DeviceReport, DeviceResult, LockSnapshot, ShadowChange, ShadowEntry,
    ShadowSnapshot, ShadowVersion, ThingName, Write, WriteId,
};
use crate::policy;
use crate::ports::{RepoError, ShadowError};

/// What a reading of the shadow showed beside the write itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconciled {
    /// Every entry belongs to a write of the lock.
    Consistent,
    /// Some entries belong to no write of the lock.
    UnknownEntries,
}

/// The store or the shadow failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Store(#[from] RepoError),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
}

impl KeyWrites {
    /// Settles the results on the write's shadow, and clears a result that cannot be read. If the write is still open afterwards
    /// and its entry is missing (a withdrawal that was cut short, a deleted shadow), the entry is restored.
    pub(super) async fn reconcile(&self, write: &Write) -> Result<Reconciled, ReconcileError> {
        let mut tokens = self.tokens();
        let reading = self.read_or_create_shadow(&write.thing, &mut tokens);
        let found = reading.await?;
        let unreadable = DeviceResult {
            write: write.id,
            outcome: DeviceOutcome::Unreadable,
        };
        let (mut version, entries) = (found.version, found.entries.clone());
        let is_unreadable = found.results.contains(&unreadable);
        self.settle_shadow(&write.thing, found).await?;
        let Some(snapshot) = self.ports.locks.load(write.lock).await? else {
            return Ok(Reconciled::Consistent);
        };
        // The lock is loaded after the entries were read: an entry is always younger than its intent.
        let reconciled = match has_unknown(&entries, &snapshot, &write.thing) {
            true => Reconciled::UnknownEntries,
            false => Reconciled::Consistent,
        };
        let Some(open) = snapshot.unfinished(write.id).filter(|w| w.is_open()) else {
            return Ok(reconciled);
        };
        if is_unreadable {
            let change = ShadowChange {
                clear_results: vec![write.id],
                ..ShadowChange::fence(version, tokens.next())
            };
            version = self.update_shadow(&write.thing, change).await?;
        }
        if entries.contains(&write.id) {
            self.save_next_check(&snapshot, open, version).await?;
            return Ok(reconciled);
        }
        let restoring = self.restore_entry(&snapshot, open, version, &mut tokens);
        match restoring.await? {
            true => Ok(reconciled),
            false => Ok(Reconciled::Consistent),
        }
    }

    /// Schedules the next check of an open write whose entry is on the shadow.
    async fn save_next_check(
        &self,
        snapshot: &LockSnapshot,
        open: &Write,
        version: ShadowVersion,
    ) -> Result<(), RepoError> {
        let (limits, now) = (&self.settings.limits, self.ports.clock.now());
        let is_early = open.next_check_at.is_some_and(|at| at > now)
            && !policy::is_scheduled_too_late(open, limits, now);
        if is_early && snapshot.shadow_version == Some(version) {
            // Nothing has changed since the last check.
            return Ok(());
        }
        let save = policy::schedule_next_check(snapshot, open, version, limits, now);
        self.ports.locks.save(save).await
    }

    /// Restores the lost entry of an open write. `false`: another write is updating the shadow and may supersede this one.
    async fn restore_entry(
        &self,
        snapshot: &LockSnapshot,
        open: &Write,
        version: ShadowVersion,
        tokens: &mut ClientTokens,
    ) -> Result<bool, ReconcileError> {
        // A process that removes the entry at this moment has loaded the lock earlier. Of its save and this one, one becomes
        // stale; if it is this one, the entry is not restored.
        let now = self.ports.clock.now();
        let soon = now.after(self.settings.request_timeout);
        let save = policy::schedule_check(snapshot, open, Some(soon), None, now);
        self.ports.locks.save(save).await?;
        if snapshot.prepared().is_some() {
            return Ok(false);
        }
        let change = ShadowChange {
            put: Some(ShadowEntry::from(open)),
            ..ShadowChange::fence(version, tokens.next())
        };
        self.update_shadow(&open.thing, change).await?;
        Ok(true)
    }

    /// The final check of a write that ended without a result of its lock: settles a result on its shadow, and otherwise removes
    /// what is left of the write there.
    pub(super) async fn final_check(&self, write: &Write) -> Result<(), ReconcileError> {
        // Before its scheduled time the lock may still be executing the write: the check is then repeated on time.
        let early = write
            .next_check_at
            .is_some_and(|at| at > self.ports.clock.now());
        let mut tokens = self.tokens();
        let mut version = None;
        if let Some(found) = self.read_shadow(&write.thing, &mut tokens).await? {
            let remains = found.has_write(write.id);
            version = Some(found.version);
            self.settle_shadow(&write.thing, found).await?;
            if self.is_settled(write.id).await? {
                return Ok(());
            }
            if remains && !early {
                // Conditional on the version that was read, which has no final result of the lock.
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
        if early && !policy::is_scheduled_too_late(write, limits, now) {
            return Ok(());
        }
        let Some(snapshot) = self.ports.locks.load(write.lock).await? else {
            return Ok(());
        };
        // Read after the snapshot, so that any later change of the write makes the save stale.
        let Some(ended) = self.ports.history.write(write.id).await? else {
            return Ok(());
        };
        if ended.is_settled_by_lock() || ended.next_check_at.is_none() {
            return Ok(());
        }
        let (next, version) = match early {
            true => (Some(now.after(limits.confirm_within)), None),
            false => (None, version),
        };
        let save = policy::schedule_check(&snapshot, &ended, next, version, now);
        Ok(self.ports.locks.save(save).await?)
    }

    async fn is_settled(&self, id: WriteId) -> Result<bool, RepoError> {
        let found = self.ports.history.write(id).await?;
        Ok(found.is_none_or(|w| w.is_settled_by_lock()))
    }

    /// Removes the recorded results of the write's lock from the shadow, with entries that the lock has left there. They are
    /// named by their ids, so the update needs no expected version.
    pub(super) async fn clear_results(&self, write: &Write) -> Result<(), ReconcileError> {
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
        let save = policy::clear_results(&snapshot, &ids, version, self.ports.clock.now());
        Ok(self.ports.locks.save(save).await?)
    }

    /// Settles the results that a reading of the shadow found.
    pub(super) async fn settle_shadow(
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
}

/// Whether one of these entries of the thing's shadow belongs to no unfinished or uncleared write of the lock.
fn has_unknown(entries: &[WriteId], snapshot: &LockSnapshot, thing: &ThingName) -> bool {
    let live = snapshot.unfinished.iter().chain(&snapshot.uncleared);
    let known = |id: &WriteId| live.clone().any(|write| write.id == *id);
    snapshot.lock.thing.as_ref() == Some(thing) && !entries.iter().all(known)
}
