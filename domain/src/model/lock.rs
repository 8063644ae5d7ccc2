//! The lock as its events tell it.

use crate::model::{
    HeldKey, KeySlot, LockEvent, LockId, LockUuid, LockVersion, OrganizationId, RecordedEvent,
    Revision, SerialNumber, ShadowVersion, ThingName, Timestamp, UserId, Write, WriteId,
};

/// A key in the lock, with the write that put it there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockKey {
    /// The key, slot and holder.
    pub held: HeldKey,
    /// The version of the `KeyWriteRequested` that put it there; `None` where no write of ours did.
    /// It orders the confirmations of one slot, which can arrive out of order.
    pub written: Option<LockVersion>,
}

/// A lock, folded from its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Its numeric id.
    pub id: LockId,
    /// Its UUID.
    pub uuid: LockUuid,
    /// Its serial number.
    pub serial_number: Option<SerialNumber>,
    /// Who owns it.
    pub owner: Option<UserId>,
    /// The organization it belongs to.
    pub organization: Option<OrganizationId>,
    /// The thing whose shadow reaches it; `None`: not provisioned.
    pub thing: Option<ThingName>,
    /// How many slots it has, where known.
    pub key_capacity: Option<u64>,
    /// The keys in it, as far as is known.
    pub keys: Vec<LockKey>,
    /// Writes without the lock's own word, with the version of their `KeyWriteRequested`, oldest
    /// first and at most [`Lock::MAX_UNSETTLED`].
    pub unsettled: Vec<(WriteId, LockVersion)>,
    /// The number of events folded in.
    pub version: LockVersion,
    /// When the newest of them was recorded.
    pub time: Timestamp,
}

/// Events that do not make a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event must create the lock.
    #[error("the first event of a lock must be LockCreated")]
    NotCreated,
    /// A lock is created once.
    #[error("LockCreated stands at version {0}, but only the first event creates a lock")]
    CreatedTwice(LockVersion),
    /// Versions are 1, 2, 3 … without gap or twin.
    #[error("version {found} follows version {after}")]
    Version {
        /// The version folded last.
        after: LockVersion,
        /// The version of the event.
        found: LockVersion,
    },
    /// An event of another lock.
    #[error("an event of lock {0} stands in the stream of another lock")]
    Foreign(LockId),
}

impl Lock {
    /// How many writes without the lock's own word are remembered: the open ones (16 by default) and
    /// some that ended without it, whose late reports must still find their place.
    pub const MAX_UNSETTLED: usize = 64;

    /// Folds a whole stream.
    ///
    /// # Errors
    /// What [`Lock::create`] and [`Lock::apply`] answer.
    pub fn fold<'a>(
        events: impl IntoIterator<Item = &'a RecordedEvent>,
    ) -> Result<Self, FoldError> {
        let mut events = events.into_iter();
        let mut lock = Self::create(events.next().ok_or(FoldError::NotCreated)?)?;
        events.try_for_each(|event| lock.apply(event))?;
        Ok(lock)
    }

    /// The lock that a stream's first event makes.
    ///
    /// # Errors
    /// It is not a `LockCreated` at version 1.
    pub fn create(first: &RecordedEvent) -> Result<Self, FoldError> {
        let LockEvent::LockCreated(new) = &first.event else {
            return Err(FoldError::NotCreated);
        };
        if first.version != LockVersion(1) {
            return Err(FoldError::Version {
                after: LockVersion(0),
                found: first.version,
            });
        }
        Ok(Self {
            id: first.lock,
            uuid: first.uuid.clone(),
            serial_number: new.serial_number.clone(),
            owner: new.owner.clone(),
            organization: None,
            thing: new.thing.clone(),
            key_capacity: new.key_capacity,
            keys: new
                .keys
                .iter()
                .cloned()
                .map(|held| LockKey {
                    held,
                    written: None,
                })
                .collect(),
            unsettled: Vec::new(),
            version: first.version,
            time: first.time,
        })
    }

    /// Takes in the next event.
    ///
    /// # Errors
    /// It is not the next event of this lock; the lock is then unchanged.
    pub fn apply(&mut self, next: &RecordedEvent) -> Result<(), FoldError> {
        if next.lock != self.id {
            return Err(FoldError::Foreign(next.lock));
        }
        if next.version != self.version.next() {
            return Err(FoldError::Version {
                after: self.version,
                found: next.version,
            });
        }
        match &next.event {
            LockEvent::LockCreated(_) => return Err(FoldError::CreatedTwice(next.version)),
            LockEvent::OwnerSet { user } => self.owner = Some(user.clone()),
            LockEvent::OrganizationSet { organization } => {
                self.organization = Some(organization.clone());
            }
            LockEvent::KeyAdded(held) => self.put_key(held.clone(), None),
            LockEvent::KeyRemoved(slot) => self.keys.retain(|k| !is_named_by(slot, k)),
            LockEvent::KeyWriteRequested(_) => self.remember(next),
            LockEvent::KeyWriteConfirmed { slot, .. } => self.confirm(next.write, slot),
            LockEvent::KeyWriteFailed { .. } => {
                self.purge(next.write);
            }
            // The lock may still apply these; a late report says so.
            LockEvent::KeyWriteExpired(_)
            | LockEvent::KeyWriteSuperseded(_)
            | LockEvent::KeyWriteWithdrawn(_) => {}
        }
        self.version = next.version;
        self.time = next.time;
        Ok(())
    }

    fn remember(&mut self, requested: &RecordedEvent) {
        if let Some(write) = requested.write {
            if self.unsettled.len() >= Self::MAX_UNSETTLED {
                self.unsettled.remove(0);
            }
            self.unsettled.push((write, requested.version));
        }
    }

    fn purge(&mut self, write: Option<WriteId>) -> Option<LockVersion> {
        let at = self
            .unsettled
            .iter()
            .position(|(id, _)| Some(*id) == write)?;
        Some(self.unsettled.remove(at).1)
    }

    /// Sets the slot without a user: a write grants nobody access. Locks apply writes in the order
    /// of their requests, so a report that arrives late does not undo what a newer write put there.
    fn confirm(&mut self, write: Option<WriteId>, slot: &KeySlot) {
        let requested = self.purge(write);
        let newer_stands = self
            .keys
            .iter()
            .any(|k| slot.index.is_some() && k.held.index == slot.index && k.written > requested);
        let same_stands = self
            .keys
            .iter_mut()
            .find(|k| k.held.key == slot.key && k.held.index == slot.index);
        if newer_stands {
            return;
        }
        if let Some(same) = same_stands {
            same.written = requested;
            return;
        }
        let held = HeldKey {
            key: slot.key.clone(),
            index: slot.index,
            user: None,
        };
        self.put_key(held, requested);
    }

    /// A slot holds one key; a key without a slot stands beside the others.
    fn put_key(&mut self, held: HeldKey, written: Option<LockVersion>) {
        self.keys.retain(|k| match held.index {
            Some(_) => k.held.index != held.index,
            None => k.held.index.is_some() || k.held.key != held.key,
        });
        self.keys.push(LockKey { held, written });
    }
}

fn is_named_by(slot: &KeySlot, key: &LockKey) -> bool {
    key.held.key == slot.key && (slot.index.is_none() || key.held.index == slot.index)
}

/// A lock with what the store knows beside its events, all read at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockSnapshot {
    /// The lock.
    pub lock: Lock,
    /// What a save must name.
    pub revision: Revision,
    /// The shadow's version as last seen; `None`: never seen.
    pub shadow_version: Option<ShadowVersion>,
    /// The prepared write, if there is one, and the open ones, in the order of their `seq`.
    pub unfinished: Vec<Write>,
    /// Writes settled by the lock whose results are still on the shadow, oldest first.
    pub uncleared: Vec<Write>,
}

impl LockSnapshot {
    /// A lock with its live writes among these, whatever their order.
    pub fn of(
        lock: Lock,
        revision: Revision,
        shadow_version: Option<ShadowVersion>,
        writes: Vec<Write>,
    ) -> Self {
        let mut live: Vec<Write> = writes.into_iter().filter(Write::is_live).collect();
        live.sort_unstable_by_key(|write| write.seq);
        let (uncleared, unfinished) = live.into_iter().partition(Write::has_uncleared_result);
        Self {
            lock,
            revision,
            shadow_version,
            unfinished,
            uncleared,
        }
    }

    /// The writes that are on the shadow and not final.
    pub fn open(&self) -> impl Iterator<Item = &Write> {
        self.unfinished.iter().filter(|w| w.is_open())
    }

    /// The write whose outcome is not known yet. At most one a lock.
    pub fn prepared(&self) -> Option<&Write> {
        self.unfinished.iter().find(|w| w.intent().is_some())
    }

    /// The unfinished write of that id.
    pub fn unfinished(&self, id: WriteId) -> Option<&Write> {
        self.unfinished.iter().find(|w| w.id == id)
    }
}
