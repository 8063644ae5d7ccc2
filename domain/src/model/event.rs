//! The events of a lock's stream: the vendor's six and our five.

use crate::model::{
    FailureReason, KeyIndex, KeyUuid, LockId, LockUuid, LockVersion, OrganizationId, SerialNumber,
    ThingName, Timestamp, UserId, WriteId,
};

/// A key that a lock holds, or is said to hold (`keys[]` of the vendor's events).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldKey {
    /// The key.
    pub key: KeyUuid,
    /// Its slot, where known.
    pub index: Option<KeyIndex>,
    /// Whose key it is. Only the vendor's events say so; a confirmed write never does.
    pub user: Option<UserId>,
}

/// The key and slot that a write is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySlot {
    /// The key.
    pub key: KeyUuid,
    /// The slot; absent where the request left the choice to the lock.
    pub index: Option<KeyIndex>,
}

/// What `LockCreated` says of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NewLock {
    /// The serial number printed on the lock.
    pub serial_number: Option<SerialNumber>,
    /// Keys that it holds from the start.
    pub keys: Vec<HeldKey>,
    /// The owner.
    pub owner: Option<UserId>,
    /// The AWS IoT thing whose shadow reaches the lock; absent: not provisioned.
    pub thing: Option<ThingName>,
    /// The thing's ARN, kept as it came.
    pub thing_arn: Option<String>,
    /// How many key slots the lock has, where known. Not in the vendor's schema.
    pub key_capacity: Option<u64>,
}

/// One change of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockEvent {
    /// The lock exists. Always the first event, and only the first.
    LockCreated(Box<NewLock>),
    /// The lock has a new owner.
    OwnerSet {
        /// The owner.
        user: UserId,
    },
    /// The lock belongs to an organization.
    OrganizationSet {
        /// The organization.
        organization: OrganizationId,
    },
    /// The lock holds a key, by other means than a write of ours.
    KeyAdded(HeldKey),
    /// The lock no longer holds a key: in that slot, or without a slot in all.
    KeyRemoved(KeySlot),
    /// The shadow accepted a write.
    KeyWriteRequested(KeySlot),
    /// The lock reported the key in its memory.
    KeyWriteConfirmed {
        /// The key, and the slot that the lock put it in.
        slot: KeySlot,
        /// The report came after the write had ended otherwise.
        late: bool,
    },
    /// The lock tried or refused.
    KeyWriteFailed {
        /// As requested.
        slot: KeySlot,
        /// Why.
        reason: FailureReason,
        /// The report came after the write had ended otherwise.
        late: bool,
    },
    /// Nothing was heard of the write in its time to live, and it was taken off the shadow.
    KeyWriteExpired(KeySlot),
    /// A newer write for the same slot took its place.
    KeyWriteSuperseded(KeySlot),
    /// It was taken back on request.
    KeyWriteWithdrawn(KeySlot),
}

impl LockEvent {
    /// Every type of event, in the order of the variants.
    pub const NAMES: [&'static str; 11] = [
        "LockCreated",
        "OwnerSet",
        "OrganizationSet",
        "KeyAdded",
        "KeyRemoved",
        "KeyWriteRequested",
        "KeyWriteConfirmed",
        "KeyWriteFailed",
        "KeyWriteExpired",
        "KeyWriteSuperseded",
        "KeyWriteWithdrawn",
    ];

    /// The types of events that writing keys records; a lock's other events are imported.
    pub fn names_of_writes() -> impl Iterator<Item = &'static str> {
        let is_of_writes = |name: &&'static str| name.starts_with("KeyWrite");
        Self::NAMES.into_iter().filter(is_of_writes)
    }

    /// The event's type as the HTTP contract spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LockCreated(_) => "LockCreated",
            Self::OwnerSet { .. } => "OwnerSet",
            Self::OrganizationSet { .. } => "OrganizationSet",
            Self::KeyAdded(_) => "KeyAdded",
            Self::KeyRemoved(_) => "KeyRemoved",
            Self::KeyWriteRequested(_) => "KeyWriteRequested",
            Self::KeyWriteConfirmed { .. } => "KeyWriteConfirmed",
            Self::KeyWriteFailed { .. } => "KeyWriteFailed",
            Self::KeyWriteExpired(_) => "KeyWriteExpired",
            Self::KeyWriteSuperseded(_) => "KeyWriteSuperseded",
            Self::KeyWriteWithdrawn(_) => "KeyWriteWithdrawn",
        }
    }
}

/// An event in its place in a lock's stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordedEvent {
    /// The lock.
    pub lock: LockId,
    /// The lock's UUID, which every event of the vendor repeats.
    pub uuid: LockUuid,
    /// The place in the stream, from 1.
    pub version: LockVersion,
    /// When it was recorded.
    pub time: Timestamp,
    /// The write that it belongs to; `None` for the vendor's other events.
    pub write: Option<WriteId>,
    /// What happened.
    pub event: LockEvent,
}
