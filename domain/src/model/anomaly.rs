//! Violations of the device contract in a lock's results.

use std::collections::BTreeSet;
use std::str::FromStr;

/// A violation of the device contract in the results of one write. The write's state is decided nevertheless, and the anomaly
/// is stored with the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// The result has no known format. The write stays open.
    UnreadableResult,
    /// The lock reported both success and failure, or two different slots. The first result stays recorded, so the lock may
    /// hold a key that is recorded as absent, or the reverse.
    ContradictingResult,
    /// The lock stored the key in another slot than requested. The reported slot is recorded.
    OtherSlot,
    /// The reported slot is not a key index. The requested slot is recorded.
    UnreadableSlot,
    /// The result names no slot. The requested slot is recorded.
    MissingSlot,
    /// The lock reported a final result and left the entry on its shadow. The entry is removed together with the result.
    EntryLeft,
}

impl Anomaly {
    /// Every anomaly.
    pub const ALL: [Self; 6] = [
        Self::UnreadableResult,
        Self::ContradictingResult,
        Self::OtherSlot,
        Self::UnreadableSlot,
        Self::MissingSlot,
        Self::EntryLeft,
    ];

    /// The name that clients, logs and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnreadableResult => "UnreadableResult",
            Self::ContradictingResult => "ContradictingResult",
            Self::OtherSlot => "OtherSlot",
            Self::UnreadableSlot => "UnreadableSlot",
            Self::MissingSlot => "MissingSlot",
            Self::EntryLeft => "EntryLeft",
        }
    }
}

impl FromStr for Anomaly {
    type Err = ();

    /// Parses what [`Anomaly::name`] returns. The error is empty: the name is unknown.
    fn from_str(name: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|anomaly| anomaly.name() == name);
        known.ok_or(())
    }
}

/// A set of anomalies, in the order of [`Anomaly::ALL`].
pub type Anomalies = BTreeSet<Anomaly>;
