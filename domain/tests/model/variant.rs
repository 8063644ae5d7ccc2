//! Weakened variants of the protocol. Each lacks one rule, and the search must find a violation, which proves that the rule is
//! needed.

use crate::protocol_model::Bounds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Unchanged,
    UnconditionalUpdate,
    NoFence,
    NoEpochCheck,
    ReadVersionAfterOwnershipCheck,
    AbortOnTimeout,
    TrustRefusalAfterUnknownOutcome,
    SameTokenForUpdateAndFence,
    DecideBeforePreparing,
    ExpireWithoutReading,
    AuditReadsStoreFirst,
}

impl Variant {
    pub(crate) const WEAKENED: [Self; 10] = [
        Self::UnconditionalUpdate,
        Self::NoFence,
        Self::NoEpochCheck,
        Self::ReadVersionAfterOwnershipCheck,
        Self::AbortOnTimeout,
        Self::TrustRefusalAfterUnknownOutcome,
        Self::SameTokenForUpdateAndFence,
        Self::DecideBeforePreparing,
        Self::ExpireWithoutReading,
        Self::AuditReadsStoreFirst,
    ];

    /// Bounds within which the search finds a violation.
    pub(crate) const fn bounds(self) -> Bounds {
        match self {
            Self::ExpireWithoutReading | Self::AuditReadsStoreFirst => Bounds::MAINTENANCE,
            _ => Bounds::PROTOCOL,
        }
    }
}
