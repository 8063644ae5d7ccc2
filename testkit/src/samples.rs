//! Sample locks, keys and writes.

use std::time::Duration;

use keywright_domain::model::{
    Cause, DeviceCode, Epoch, FailureReason, HeldKey, IdempotencyKey, IdempotencyScope, Identity,
    Intent, KeyIndex, KeySlot, KeyUuid, LockEvent, LockId, LockSnapshot, LockUuid, LockVersion,
    MAX_JSON_INTEGER, NewLock, OrganizationId, Principal, RecordedEvent, RequestId, Save,
    SerialNumber, Settled, ShadowVersion, ThingName, Timestamp, UserId, WorkerId, Write, WriteId,
    WriteState,
};
use keywright_domain::policy::{self, Limits, NewWrite};

/// The current time of the samples, in May 2026.
pub const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

/// The lease of the sample intents.
pub const LEASE: Duration = Duration::from_secs(15);

/// The version of a sample shadow after a write was sent.
pub const SHADOW_VERSION: ShadowVersion = ShadowVersion(5);

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
        cause: None,
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
        cause: cause(),
        intent: Intent {
            worker: WorkerId(7),
            epoch: Epoch(1),
            lease: LEASE,
        },
    };
    policy::prepare(snapshot, &new, &Limits::default(), NOW)
}

/// A request of the owner.
///
/// # Panics
/// Never: the id is valid.
pub fn cause() -> Cause {
    let request = RequestId::new("request-1.a_B").expect("a request id");
    Cause::new(&principal(), Some(request))
}

/// The moment so many milliseconds after another one.
pub fn millis_after(time: Timestamp, millis: u64) -> Timestamp {
    time.after(Duration::from_millis(millis))
}

/// The scope of a request of the owner about lock 1 with this Idempotency-Key.
///
/// # Panics
/// The key is invalid.
pub fn scope(key: &str) -> IdempotencyScope {
    let key = IdempotencyKey::new(key).expect("an Idempotency-Key");
    IdempotencyScope::new(lock_id(1), &principal(), key)
}

/// Every reason that a write can have, and error codes of a device.
///
/// # Panics
/// Never: the codes are valid.
pub fn every_reason() -> Vec<FailureReason> {
    let named = FailureReason::names().filter_map(|name| name.parse().ok());
    let code =
        |text: &str| FailureReason::DeviceError(DeviceCode::new(text).expect("a device code"));
    // A code may be the name of a reason, and is not that reason then.
    named
        .chain([code("E42"), code("NoSpace"), code(&widest(64))])
        .collect()
}

/// The states of writes that failed or were aborted for this reason.
pub fn failures(reason: &FailureReason) -> [WriteState; 2] {
    let settled = Settled {
        at: NOW,
        late: false,
    };
    [
        WriteState::Failed(reason.clone(), settled),
        WriteState::Aborted {
            at: NOW,
            reason: reason.clone(),
        },
    ]
}

/// The state of a write that has expired.
pub const fn expired_at(at: Timestamp) -> WriteState {
    WriteState::Expired { at }
}

/// Every state but PREPARED, with and without a late result.
pub fn every_state() -> Vec<WriteState> {
    let at = NOW;
    let mut states = vec![
        WriteState::Sent,
        WriteState::InProgress,
        WriteState::Expired { at },
        WriteState::Superseded { at },
        WriteState::Withdrawn { at },
        WriteState::Aborted {
            at,
            reason: FailureReason::Throttled,
        },
    ];
    for late in [false, true] {
        let settled = Settled { at, late };
        states.push(WriteState::Succeeded(settled));
        states.push(WriteState::Failed(FailureReason::NoSpace, settled));
    }
    states
}

/// The write in another state.
pub fn in_state(write: &Write, state: WriteState) -> Write {
    Write {
        state,
        ..write.clone()
    }
}

/// A text of so many bytes, with a quote, a backslash and characters of four bytes.
fn widest(bytes: usize) -> String {
    let start = "\"\\'😀";
    let rest = bytes - start.len();
    format!("{start}{}{}", "x".repeat(rest % 4), "😀".repeat(rest / 4))
}

/// The `LockCreated` of a sample lock whose texts are as long as they may be.
///
/// # Panics
/// Never: the texts are valid.
pub fn created_with_longest_texts(lock: LockId) -> RecordedEvent {
    let user = UserId::new(&widest(UserId::MAX_BYTES)).expect("a user id");
    let new = NewLock {
        serial_number: SerialNumber::new(&widest(SerialNumber::MAX_BYTES)).ok(),
        keys: vec![HeldKey {
            key: KeyUuid::new(&widest(KeyUuid::MAX_BYTES)).expect("a key uuid"),
            index: None,
            user: Some(user.clone()),
        }],
        owner: Some(user),
        thing: ThingName::new(&"t".repeat(ThingName::MAX_BYTES)).ok(),
        thing_arn: Some(widest(2048)),
        key_capacity: None,
    };
    RecordedEvent {
        uuid: LockUuid::new(&widest(LockUuid::MAX_BYTES)).expect("a lock uuid"),
        event: LockEvent::LockCreated(Box::new(new)),
        ..created(lock)
    }
}

/// A principal whose names are as long as they may be.
fn longest_principal() -> Principal {
    let user = UserId::new(&widest(UserId::MAX_BYTES)).expect("a user id");
    let organization = OrganizationId::new(&widest(OrganizationId::MAX_BYTES));
    Principal::of_both(
        Identity::User(user),
        Identity::Organization(organization.expect("an organization id")),
    )
}

/// A prepared write whose texts are as long as they may be, with the save that stores it.
///
/// # Panics
/// In debug builds: the lock has a prepared write already.
pub fn prepared_with_longest_texts(snapshot: &LockSnapshot, id: u128) -> (Write, Save) {
    let key = widest(KeyUuid::MAX_BYTES);
    let (mut write, mut save) = prepared(snapshot, id, slot(&key, None));
    write.thing = ThingName::new(&"t".repeat(ThingName::MAX_BYTES)).expect("a thing name");
    let request = RequestId::new(&"r".repeat(RequestId::MAX_BYTES)).expect("a request id");
    write.cause = Cause::new(&longest_principal(), Some(request));
    save.writes = vec![write.clone()];
    (write, save)
}

/// A scope whose texts are as long as they may be.
///
/// # Panics
/// Never: the texts are valid.
pub fn longest_scope() -> IdempotencyScope {
    let key = format!("\"\\'{}", "k".repeat(IdempotencyKey::MAX_BYTES - 3));
    let key = IdempotencyKey::new(&key).expect("an Idempotency-Key");
    IdempotencyScope::new(lock_id(1), &longest_principal(), key)
}

/// The `LockCreated` of the lock with the greatest id, with the greatest numbers.
///
/// # Panics
/// Never: the numbers are valid.
pub fn created_with_largest_numbers() -> RecordedEvent {
    let lock = lock_id(MAX_JSON_INTEGER);
    let new = NewLock {
        keys: vec![HeldKey {
            key: KeyUuid::new("key").expect("a key uuid"),
            index: KeyIndex::new(MAX_JSON_INTEGER).ok(),
            user: None,
        }],
        key_capacity: Some(MAX_JSON_INTEGER),
        ..NewLock::default()
    };
    RecordedEvent {
        event: LockEvent::LockCreated(Box::new(new)),
        ..created(lock)
    }
}

/// A stream with events of every type, those of the vendor first. Their optional members are set in one event and missing in
/// another.
pub fn every_event(lock: LockId) -> Vec<RecordedEvent> {
    let held = |index, user| HeldKey {
        key: KeyUuid::new("another \"key\"").expect("a key uuid"),
        index,
        user,
    };
    let index = KeyIndex::new(7).ok();
    let full = slot("key", Some(3));
    let vendor = [
        LockEvent::OwnerSet { user: owner() },
        LockEvent::OrganizationSet {
            organization: OrganizationId::new("acme").expect("an organization id"),
        },
        LockEvent::KeyAdded(held(index, Some(owner()))),
        LockEvent::KeyAdded(held(None, None)),
        LockEvent::KeyRemoved(slot("another \"key\"", Some(7))),
        LockEvent::KeyRemoved(slot("another \"key\"", None)),
    ];
    let mut own = vec![LockEvent::KeyWriteRequested(slot("key", None))];
    for late in [false, true] {
        own.push(LockEvent::KeyWriteConfirmed {
            slot: full.clone(),
            late,
        });
        own.extend(
            every_reason()
                .into_iter()
                .map(|reason| LockEvent::KeyWriteFailed {
                    slot: full.clone(),
                    reason,
                    late,
                }),
        );
    }
    own.extend([
        LockEvent::KeyWriteRequested(full.clone()),
        LockEvent::KeyWriteExpired(full.clone()),
        LockEvent::KeyWriteSuperseded(full.clone()),
        LockEvent::KeyWriteWithdrawn(full),
    ]);
    let vendor = vendor.into_iter().map(|event| (None, event));
    let own = (100..)
        .zip(own)
        .map(|(id, event)| (Some(WriteId::from_u128(id)), event));
    let rest = vendor
        .chain(own)
        .zip(2..)
        .map(|((write, event), version)| RecordedEvent {
            version: LockVersion(version),
            time: millis_after(NOW, version),
            // An event without a write has no cause. Some causes have no request id.
            cause: write.map(|_| Cause {
                request: cause().request.filter(|_| version % 2 == 0),
                ..cause()
            }),
            write,
            event,
            ..created(lock)
        });
    std::iter::once(created(lock)).chain(rest).collect()
}
