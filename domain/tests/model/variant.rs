//! The protocol with one rule left out, which the search must find out: each rule is needed.

use crate::world::Bounds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    AsItIs,
    NoVersionInTheUpdate,
    NoFence,
    NoEpochCheck,
    VersionReadAfterTheOwnershipCheck,
    RefusedAtOnceOnATimeout,
    RefusalTrustedAfterAnUnknownAttempt,
    OneTokenForUpdateAndFence,
    DecideBeforeTheTurn,
    ExpireWithoutReading,
    AuditReadsTheStoreFirst,
}

impl Variant {
    pub(crate) const WEAKENED: [Self; 10] = [
        Self::NoVersionInTheUpdate,
        Self::NoFence,
        Self::NoEpochCheck,
        Self::VersionReadAfterTheOwnershipCheck,
        Self::RefusedAtOnceOnATimeout,
        Self::RefusalTrustedAfterAnUnknownAttempt,
        Self::OneTokenForUpdateAndFence,
        Self::DecideBeforeTheTurn,
        Self::ExpireWithoutReading,
        Self::AuditReadsTheStoreFirst,
    ];

    /// What is enough to find it out.
    pub(crate) const fn bounds(self) -> Bounds {
        match self {
            Self::ExpireWithoutReading | Self::AuditReadsTheStoreFirst => Bounds::FOR_MAINTENANCE,
            _ => Bounds::FOR_THE_PROTOCOL,
        }
    }
}
