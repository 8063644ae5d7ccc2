//! Both ends of `WriteKey` without a connection between them, for whoever measures them.

use keywright_domain::WriteReceipt;
use keywright_domain::model::{KeySlot, LockId};

use super::answer::{Success, to_json};
use super::request::slot_of;

/// The key and slot that a request's body names; `None`: it would be answered with 400.
pub fn key_slot(body: &[u8]) -> Option<KeySlot> {
    slot_of(body).ok()
}

/// The body of the 200 to a write.
pub fn success(lock: LockId, written: &WriteReceipt) -> Vec<u8> {
    to_json(&Success::new(lock, written, None))
}
