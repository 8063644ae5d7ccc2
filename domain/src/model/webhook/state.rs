//! Whether a webhook delivers events.

use crate::model::Timestamp;

/// Whether events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookState {
    /// Events are delivered.
    Enabled,
    /// Nothing is delivered. The cursor stays, so that enabling continues there.
    Disabled {
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: DisabledReason,
    },
}

/// Why a webhook is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// Its owner asked for it.
    Requested,
    /// It answered 410.
    Gone,
    /// All its deliveries failed for too long.
    Failing,
}

impl DisabledReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Requested, Self::Gone, Self::Failing];

    /// The name in answers of the API and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    /// The reason with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
