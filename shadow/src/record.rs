use std::sync::Arc;

use crate::engine::Document;

/// The stored state of a shadow.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The shadow exists.
    Live(Arc<Document>),
    /// The shadow was deleted. If it is created again within 48 hours, its versions continue from `version`.
    Tombstone {
        /// One more than the version of the deleted document.
        version: u64,
        /// The time of the deletion, in epoch seconds.
        deleted_at: u64,
    },
}

/// How long the version of a deleted shadow is remembered, in seconds.
const TOMBSTONE_SECS: u64 = 48 * 3600;

impl Record {
    /// The document, unless the shadow was deleted.
    pub(crate) const fn document(&self) -> Option<&Arc<Document>> {
        match self {
            Self::Live(document) => Some(document),
            Self::Tombstone { .. } => None,
        }
    }

    /// The version from which a shadow that is created at `now` (epoch seconds) counts.
    pub(crate) const fn version_before_creation(&self, now: u64) -> u64 {
        match self {
            Self::Tombstone {
                version,
                deleted_at,
            } if now.saturating_sub(*deleted_at) < TOMBSTONE_SECS => *version,
            _ => 0,
        }
    }
}
