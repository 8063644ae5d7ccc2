//! Parsing and serializing the bodies of `WriteKey` without a connection, for benches.

use keywright_domain::WriteReceipt;
use keywright_domain::model::{KeySlot, LockId};

use super::request_body::parse_key_slot;
use super::response::to_json;
use super::response_body::Success;

/// Parses the body of a request. `None`: the response would be a 400.
pub fn key_slot(body: &[u8]) -> Option<KeySlot> {
    parse_key_slot(body).ok()
}

/// Serializes the body of the 200 to a write.
pub fn success(lock: LockId, receipt: &WriteReceipt) -> Vec<u8> {
    to_json(&Success::new(lock, receipt, None))
}
