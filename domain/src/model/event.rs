//! The events of a lock's stream: those that the vendor's service publishes, and those that writing keys records.

use std::fmt;
use std::str::FromStr;

use crate::model::{
    FailureReason, InvalidValue, KeyIndex, KeyUuid, LockId, LockUuid, LockVersion, OrganizationId,
    Principal, RequestId, SerialNumber, ThingName, Timestamp, UserId, WriteId,
};

/// A key in a lock (`keys[]` in the vendor's events).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldKey {
    /// The key.
    pub key: KeyUuid,
    /// Its slot, if known.
    pub index: Option<KeyIndex>,
    /// The user who holds the key. Only events of the vendor set it; a confirmed write never does.
    pub user: Option<UserId>,
}

/// The key of a write, and the slot of the lock that it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySlot {
    /// The key.
    pub key: KeyUuid,
    /// The slot. `None`: the lock chooses one.
    pub index: Option<KeyIndex>,
}

/// The data of a `LockCreated` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NewLock {
    /// The serial number printed on the lock.
    pub serial_number: Option<SerialNumber>,
    /// Keys that the lock holds from the start.
    pub keys: Vec<HeldKey>,
    /// The owner.
    pub owner: Option<UserId>,
    /// The AWS IoT thing whose shadow reaches the lock. `None`: the lock is not provisioned.
    pub thing: Option<ThingName>,
    /// The thing's ARN, stored without a check of its format.
    pub thing_arn: Option<String>,
    /// The number of key slots, if known. Not in the vendor's schema.
    pub key_capacity: Option<u64>,
}

/// One change of a lock. The names of the variants are the event types of the HTTP contract.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockEvent {
    /// The lock exists. This is always the first event, and only the first.
    LockCreated(Box<NewLock>),
    /// The lock has a new owner.
    OwnerSet {
        /// The owner.
        user: UserId,
    },
    /// The lock belongs to another organization from now on.
    OrganizationSet {
        /// The organization.
        organization: OrganizationId,
    },
    /// The lock holds a key that it received by other means than a key write.
    KeyAdded(HeldKey),
    /// The lock no longer holds a key in this slot; without an index, in any slot.
    KeyRemoved(KeySlot),
    /// The shadow accepted a write.
    KeyWriteRequested(KeySlot),
    /// The lock reported that it holds the key.
    KeyWriteConfirmed {
        /// The key, and the slot in which the lock stored it.
        slot: KeySlot,
        /// Whether the report came after the write had expired, or been superseded or withdrawn.
        late: bool,
    },
    /// The lock reported that it could not or would not store the key.
    KeyWriteFailed {
        /// The key and slot as requested.
        slot: KeySlot,
        /// The reason that the lock gave.
        reason: FailureReason,
        /// Whether the report came after the write had expired, or been superseded or withdrawn.
        late: bool,
    },
    /// The lock did not settle the write within its time to live, and its entry was removed from the shadow.
    KeyWriteExpired(KeySlot),
    /// A newer write for the same slot replaced the write.
    KeyWriteSuperseded(KeySlot),
    /// A client withdrew the write.
    KeyWriteWithdrawn(KeySlot),
}

impl LockEvent {
    /// The names of all event types, in the order of the variants.
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

    /// The names of the event types that writing keys records. Events of the other types are only imported.
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

/// The request that led to an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// The principal that made the request, as [`Principal`] is displayed. No decision reads it.
    pub requested_by: String,
    /// The id of the request, if the caller of the use case has given one.
    pub request: Option<RequestId>,
}

impl Cause {
    /// A request of this principal.
    pub fn new(principal: &Principal, request: Option<RequestId>) -> Self {
        Self {
            requested_by: principal.to_string(),
            request,
        }
    }

    /// Whether the principal has this name: its whole text, one of its proofs, or the identity of a proof. For instance, the principal
    /// `user:eve+org:acme,key:kwk_abcd` has the names `user:eve`, `org:acme,key:kwk_abcd` and `org:acme`.
    pub fn is_requested_by(&self, name: &str) -> bool {
        let is_identity_of = |proof: &str| {
            let credential = proof.strip_prefix(name);
            credential.is_some_and(|credential| credential.starts_with(','))
        };
        let mut proofs = self.requested_by.split('+');
        self.requested_by == name || proofs.any(|proof| proof == name || is_identity_of(proof))
    }
}

/// An event at its position in the stream of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordedEvent {
    /// The lock.
    pub lock: LockId,
    /// The lock's UUID. The vendor's schema repeats it in every event.
    pub uuid: LockUuid,
    /// The position in the stream, counted from 1.
    pub version: LockVersion,
    /// When the event was recorded. Times are not monotonic: they can decrease when the wall clock is set back.
    pub time: Timestamp,
    /// The write that the event belongs to. `None`: the event was imported.
    pub write: Option<WriteId>,
    /// The request that led to the event: the one for its write, or the one that superseded or withdrew that write. `None`: the event
    /// was imported, or recorded by a version that kept no causes.
    pub cause: Option<Cause>,
    /// What happened.
    pub event: LockEvent,
}

/// Identifies an event among all events of a store: its lock, and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The lock.
    pub lock: LockId,
    /// The position in the stream of the lock.
    pub version: LockVersion,
}

impl EventId {
    /// The id of an event.
    pub const fn of(event: &RecordedEvent) -> Self {
        let (lock, version) = (event.lock, event.version);
        Self { lock, version }
    }
}

impl fmt::Display for EventId {
    /// `LOCK-VERSION`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lock, self.version)
    }
}

impl FromStr for EventId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parse = || {
            let (lock, version) = text.split_once('-')?;
            let version: LockId = version.parse().ok()?;
            Some(Self {
                lock: lock.parse().ok()?,
                version: LockVersion(version.get()),
            })
        };
        parse().ok_or(InvalidValue {
            what: "event",
            rule: "must be the id of an event, such as 123-7",
        })
    }
}

/// The place of an event among all events of a store. Positions grow in the order in which events become readable; some numbers may be
/// missing. The first position is at least 1, so [`Position::START`] is before all events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);
}

/// An event with its position in its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// The position.
    pub position: Position,
    /// The event.
    pub event: RecordedEvent,
}
