//! Random keys and key indexes.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of key indexes of a virtual lock.
const KEY_CAPACITY: u64 = 100;

/// A key that has not been used before.
pub(super) fn new_key() -> String {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let n = KEYS.fetch_add(1, Ordering::Relaxed);
    format!("load-{:08x}-{n}", fastrand::u32(..))
}

/// A random key index, so that few writes supersede each other.
pub(super) fn any_key_index() -> u64 {
    fastrand::u64(0..KEY_CAPACITY)
}
