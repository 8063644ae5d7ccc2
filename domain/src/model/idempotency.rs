//! Records that make a repeated request return its first answer (invariant I7).

use crate::model::{IdempotencyKey, KeySlot, LockId, LockVersion, Principal, Timestamp, WriteId};

/// Identifies a request. A client's key is valid for one principal and one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyScope {
    /// The lock.
    pub lock: LockId,
    /// The principal's identities, see [`Principal::scope`]. Another credential of the same identities may repeat a request.
    pub principal: String,
    /// The client's key.
    pub key: IdempotencyKey,
}

impl IdempotencyScope {
    /// The scope of a request of this principal about this lock with this key.
    pub fn new(lock: LockId, principal: &Principal, key: IdempotencyKey) -> Self {
        Self {
            lock,
            principal: principal.scope(),
            key,
        }
    }
}

/// What is stored about a request that has an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The request.
    pub scope: IdempotencyScope,
    /// The key and slot that the request was about.
    pub slot: KeySlot,
    /// The write that the request created, or the open write that was found to be the same.
    pub write: WriteId,
    /// The lock's version that was answered, if the same write was open already and no event was recorded.
    pub version_without_event: Option<LockVersion>,
    /// When the request itself is answered at the latest.
    pub answer_deadline: Timestamp,
    /// When the record expires.
    pub expires_at: Timestamp,
}
