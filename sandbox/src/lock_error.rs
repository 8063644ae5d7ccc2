use keywright_shadow::Rejected;
#[cfg(feature = "mqtt")]
use keywright_shadow::mqtt::RequestError;

use crate::lock_memory_file::MemoryFileError;

/// A virtual lock failed to read or update its shadow, or to save its memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[cfg(feature = "mqtt")]
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Memory(#[from] MemoryFileError),
}
