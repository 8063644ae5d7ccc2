//! Mutexes whose data stays consistent when a holder panics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic of another holder. Only for data whose updates are complete wherever a panic can occur.
pub(crate) fn lock_mutex<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
