//! Sample locks, keys and writes.

use std::time::Duration;

use keywright_domain::model::{
    Epoch, HeldKey, Identity, Intent, KeyIndex, KeySlot, KeyUuid, LockEvent, LockId, LockSnapshot,
    LockUuid, LockVersion, NewLock, Principal, RecordedEvent, Save, SerialNumber, ThingName,
    Timestamp, UserId, WorkerId, Write, WriteId,
};
use keywright_domain::policy::{self, Limits, NewWrite};

/// The current time of the samples, in May 2026.
pub const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

/// The lease of the sample intents.
pub const LEASE: Duration = Duration::from_secs(15);

/// The lock id with this number.
///
/// # Panics
/// The number is 0 or above 2⁵³ − 1.
pub fn lock_id(id: u64) -> LockId {
    LockId::new(id).expect("a lock id")
}

/// The thing of a sample lock: `thing-ID`.
pub fn thing(lock: LockId) -> ThingName {
    ThingName::new(&format!("thing-{lock}")).expect("a thing name")
}

/// The key with this id, with or without a key index.
///
/// # Panics
/// The id is not a valid [`KeyUuid`], or the index is above 2⁵³ − 1.
pub fn slot(key: &str, index: Option<u64>) -> KeySlot {
    let index = index.map(|i| KeyIndex::new(i).expect("a key index"));
    KeySlot {
        key: KeyUuid::new(key).expect("a key uuid"),
        index,
    }
}

/// The user that owns the sample locks.
pub fn owner() -> UserId {
    UserId::new("the-owner").expect("a user id")
}

/// The owner of the sample locks as a principal.
pub fn principal() -> Principal {
    Principal::of(Identity::User(owner()))
}

/// The `LockCreated` of a sample lock, with every member set. The lock has 100 key slots.
pub fn created(lock: LockId) -> RecordedEvent {
    let held = HeldKey {
        key: KeyUuid::new("a-first-key").expect("a key uuid"),
        index: KeyIndex::new(0).ok(),
        user: Some(owner()),
    };
    let new = NewLock {
        serial_number: SerialNumber::new("SN-1").ok(),
        keys: vec![held],
        owner: Some(owner()),
        thing: Some(thing(lock)),
        thing_arn: Some(format!("arn:aws:iot:eu-west-1:1:thing/thing-{lock}")),
        key_capacity: Some(100),
    };
    RecordedEvent {
        lock,
        uuid: LockUuid::new("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11").expect("a lock uuid"),
        version: LockVersion(1),
        time: NOW,
        write: None,
        event: LockEvent::LockCreated(Box::new(new)),
    }
}

/// A prepared write of the owner for a sample lock, with the save that stores it. The lease is [`LEASE`].
///
/// # Panics
/// In debug builds: the lock has a prepared write already.
pub fn prepared(snapshot: &LockSnapshot, id: u128, slot: KeySlot) -> (Write, Save) {
    let new = NewWrite {
        id: WriteId::from_u128(id),
        thing: &thing(snapshot.lock.id),
        slot: &slot,
        principal: &principal(),
        intent: Intent {
            worker: WorkerId(7),
            epoch: Epoch(1),
            lease: LEASE,
        },
    };
    policy::prepare(snapshot, &new, &Limits::default(), NOW)
}
