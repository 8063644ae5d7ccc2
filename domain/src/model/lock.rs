//! The lock as an aggregate: the fold of its events.

use crate::model::{
    HeldKey, KeySlot, LockEvent, LockId, LockUuid, LockVersion, OrganizationId, RecordedEvent,
    Revision, SerialNumber, ShadowVersion, ThingName, Timestamp, UserId, Write, WriteId,
};

/// A key in the lock, with the write that stored it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockKey {
    /// The key, its slot and its user.
    pub held: HeldKey,
    /// The version of the `KeyWriteRequested` of the write that stored the key. `None`: no key write stored it.
    /// It orders the confirmations of one slot, which can arrive out of order.
    pub requested: Option<LockVersion>,
}

/// A write for which the lock has reported no final result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnsettledWrite {
    /// The write.
    pub id: WriteId,
    /// The version of its `KeyWriteRequested`.
    pub requested: LockVersion,
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
    /// The user who owns it.
    pub owner: Option<UserId>,
    /// The organization that it belongs to.
    pub organization: Option<OrganizationId>,
    /// The thing whose shadow reaches it. `None`: the lock is not provisioned.
    pub thing: Option<ThingName>,
    /// The number of its key slots, if known. Valid key indexes are below it.
    pub key_capacity: Option<u64>,
    /// The keys that it is known to hold.
    pub keys: Vec<LockKey>,
    /// Writes for which the lock has reported no final result, oldest first, at most [`Lock::MAX_UNSETTLED`].
    pub unsettled: Vec<UnsettledWrite>,
    /// The version of the last event that was applied.
    pub version: LockVersion,
    /// When that event was recorded.
    pub time: Timestamp,
}

/// An event does not continue the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is not a `LockCreated`, or there is no event.
    #[error("the first event of a lock must be LockCreated")]
    NotCreated,
    /// A `LockCreated` follows other events.
    #[error("LockCreated is at version {0}, but only the first event creates a lock")]
    CreatedTwice(LockVersion),
    /// A version is missing or repeated: versions are 1, 2, 3 and so on.
    #[error("version {found} follows version {after}")]
    Version {
        /// The version of the last event that was applied.
        after: LockVersion,
        /// The version of the event that was rejected.
        found: LockVersion,
    },
    /// The event belongs to another lock.
    #[error("an event of lock {0} is in the stream of another lock")]
    OtherLock(LockId),
}

impl Lock {
    /// How many unsettled writes are remembered: the open ones (16 by default), and some that expired or were superseded or
    /// withdrawn, because a late report needs the version of the write's request. The oldest are dropped first.
    pub const MAX_UNSETTLED: usize = 64;

    /// Folds a whole stream.
    ///
    /// # Errors
    /// See [`FoldError`]; an empty stream is [`FoldError::NotCreated`].
    pub fn fold<'a>(
        events: impl IntoIterator<Item = &'a RecordedEvent>,
    ) -> Result<Self, FoldError> {
        let mut events = events.into_iter();
        let mut lock = Self::create(events.next().ok_or(FoldError::NotCreated)?)?;
        events.try_for_each(|event| lock.apply(event))?;
        Ok(lock)
    }

    /// Creates the lock from the first event of its stream.
    ///
    /// # Errors
    /// The event is not a `LockCreated` at version 1.
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
        let keys = new.keys.iter().map(|held| LockKey {
            held: held.clone(),
            requested: None,
        });
        Ok(Self {
            id: first.lock,
            uuid: first.uuid.clone(),
            serial_number: new.serial_number.clone(),
            owner: new.owner.clone(),
            organization: None,
            thing: new.thing.clone(),
            key_capacity: new.key_capacity,
            keys: keys.collect(),
            unsettled: Vec::new(),
            version: first.version,
            time: first.time,
        })
    }

    /// Applies the next event.
    ///
    /// # Errors
    /// The event is not the next one of this lock. The lock is then unchanged.
    pub fn apply(&mut self, next: &RecordedEvent) -> Result<(), FoldError> {
        if next.lock != self.id {
            return Err(FoldError::OtherLock(next.lock));
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
            LockEvent::KeyRemoved(slot) => self.keys.retain(|k| !matches_slot(k, slot)),
            LockEvent::KeyWriteRequested(_) => self.add_unsettled(next),
            LockEvent::KeyWriteConfirmed { slot, .. } => self.confirm(next.write, slot),
            LockEvent::KeyWriteFailed { .. } => {
                self.remove_unsettled(next.write);
            }
            // The lock may still execute these writes, and then reports them late.
            LockEvent::KeyWriteExpired(_)
            | LockEvent::KeyWriteSuperseded(_)
            | LockEvent::KeyWriteWithdrawn(_) => {}
        }
        self.version = next.version;
        self.time = next.time;
        Ok(())
    }

    fn add_unsettled(&mut self, event: &RecordedEvent) {
        if let Some(id) = event.write {
            if self.unsettled.len() >= Self::MAX_UNSETTLED {
                self.unsettled.remove(0);
            }
            let requested = event.version;
            self.unsettled.push(UnsettledWrite { id, requested });
        }
    }

    /// Returns the version of the write's `KeyWriteRequested`, if it is still remembered.
    fn remove_unsettled(&mut self, write: Option<WriteId>) -> Option<LockVersion> {
        let mut unsettled = self.unsettled.iter();
        let at = unsettled.position(|unsettled| Some(unsettled.id) == write)?;
        Some(self.unsettled.remove(at).requested)
    }

    /// Enters the key without a user, because a write gives no user access to the lock. Locks execute writes in the order of
    /// their requests, so a late report of an older write does not replace the key of a newer one.
    fn confirm(&mut self, write: Option<WriteId>, slot: &KeySlot) {
        let requested = self.remove_unsettled(write);
        let same_slot = |k: &LockKey| slot.index.is_some() && k.held.index == slot.index;
        let is_newer = |k: &LockKey| same_slot(k) && k.requested > requested;
        if self.keys.iter().any(is_newer) {
            return;
        }
        let mut keys = self.keys.iter_mut();
        let same = keys.find(|k| k.held.key == slot.key && k.held.index == slot.index);
        if let Some(same) = same {
            same.requested = requested;
            return;
        }
        let held = HeldKey {
            key: slot.key.clone(),
            index: slot.index,
            user: None,
        };
        self.put_key(held, requested);
    }

    /// Adds a key. It replaces the key in the same slot, or the same key without a known slot.
    fn put_key(&mut self, held: HeldKey, requested: Option<LockVersion>) {
        self.keys.retain(|k| match held.index {
            Some(_) => k.held.index != held.index,
            None => k.held.index.is_some() || k.held.key != held.key,
        });
        self.keys.push(LockKey { held, requested });
    }
}

/// Whether it is the key that `slot` names, in its slot or, without an index, in any.
fn matches_slot(key: &LockKey, slot: &KeySlot) -> bool {
    key.held.key == slot.key && (slot.index.is_none() || key.held.index == slot.index)
}

/// A lock, its live writes and the last known version of its shadow, all read at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockSnapshot {
    /// The lock.
    pub lock: Lock,
    /// The revision that a save based on this snapshot names.
    pub revision: Revision,
    /// The last known version of the shadow. `None`: the shadow has never been read or updated.
    pub shadow_version: Option<ShadowVersion>,
    /// The prepared write, if there is one, and the open writes, in the order of their `seq`.
    pub unfinished: Vec<Write>,
    /// Writes that the lock has settled and whose results are still on the shadow, in the order of their `seq`.
    pub uncleared: Vec<Write>,
}

impl LockSnapshot {
    /// A snapshot with those of `writes` that are live, see [`Write::is_live`]. The order of `writes` does not matter.
    pub fn new(
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

    /// The open writes, in the order of their `seq`.
    pub fn open(&self) -> impl Iterator<Item = &Write> {
        self.unfinished.iter().filter(|w| w.is_open())
    }

    /// The prepared write. A lock has at most one.
    pub fn prepared(&self) -> Option<&Write> {
        self.unfinished.iter().find(|w| w.intent().is_some())
    }

    /// The unfinished write with this id.
    pub fn unfinished(&self, id: WriteId) -> Option<&Write> {
        self.unfinished.iter().find(|w| w.id == id)
    }
}
