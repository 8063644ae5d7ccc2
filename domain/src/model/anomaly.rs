//! What is odd about a lock's answers to a write.

use std::str::FromStr;

/// Something about the lock's answers to one write that the device contract rules out. The write's state is decided
/// all the same, and the anomaly stays with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// The lock answered with something that is no result. The write stays open.
    UnreadableResult,
    /// The lock said that it did the write and that it failed, or named two slots. The first answer stays recorded, so
    /// the lock may hold a key that is recorded as absent, or the reverse.
    ContradictingResult,
    /// The lock put the key in another slot than the one that was asked for. The slot that it reports is recorded.
    OtherSlot,
    /// The lock named the slot by something that is no slot number. The slot that was asked for is recorded.
    UnreadableSlot,
    /// The lock named no slot. The slot that was asked for is recorded.
    MissingSlot,
    /// The lock answered and left the entry on its shadow. The entry is taken off together with the result.
    EntryLeft,
}

impl Anomaly {
    /// All kinds.
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

    fn from_str(name: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|anomaly| anomaly.name() == name);
        known.ok_or(())
    }
}

/// A set of anomalies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anomalies(u8);

impl Anomalies {
    /// No anomaly.
    pub const NONE: Self = Self(0);

    const fn bit(anomaly: Anomaly) -> u8 {
        1 << anomaly as u8
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub const fn contains(self, anomaly: Anomaly) -> bool {
        self.0 & Self::bit(anomaly) != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, anomaly: Anomaly) {
        self.0 |= Self::bit(anomaly);
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These but those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Each of them, in the order of [`Anomaly::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Anomaly> {
        let all = Anomaly::ALL.into_iter();
        all.filter(move |anomaly| self.contains(*anomaly))
    }
}

impl FromIterator<Anomaly> for Anomalies {
    fn from_iter<T: IntoIterator<Item = Anomaly>>(anomalies: T) -> Self {
        let mut set = Self::NONE;
        anomalies
            .into_iter()
            .for_each(|anomaly| set.insert(anomaly));
        set
    }
}
