//! What is certain about a write: whether its key can still reach the lock.

use crate::model::{Timestamp, Write, WriteState};

/// Whether the key of a write can reach the lock, or has reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The lock holds the key, or is storing it.
    Yes,
    /// It can until then.
    Until(Timestamp),
    /// It never will.
    No,
}

impl Reach {
    /// `yes`, `until` or `no`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Until(_) => "until",
            Self::No => "no",
        }
    }
}

/// Whether the key of this write can reach the lock, by what is recorded and by the wall clock, and why, in a sentence for people. The
/// rules are those of the device contract (docs/firmware.md): a lock executes what it has read from its shadow, and skips what has
/// expired.
pub fn reach(write: &Write, now: Timestamp) -> (Reach, &'static str) {
    let until_expiry = |before: &'static str, after: &'static str| match now < write.expires_at {
        true => (Reach::Until(write.expires_at), before),
        false => (Reach::No, after),
    };
    match &write.state {
        WriteState::Prepared(_) => until_expiry(
            "It is not decided yet whether the shadow has accepted the write. If it has, the lock can read it until it expires.",
            "The write has expired, and locks skip expired writes. Whether the shadow had accepted it is not decided yet.",
        ),
        WriteState::Sent => until_expiry(
            "The write is on the shadow of the lock. The lock reads it when it is connected, until the write expires.",
            "The write has expired, and locks skip expired writes. The expiry is recorded soon.",
        ),
        WriteState::InProgress => (
            Reach::Yes,
            "The lock has reported that it is executing the write.",
        ),
        WriteState::Succeeded(_) => (Reach::Yes, "The lock has reported that it holds the key."),
        WriteState::Failed(..) => (
            Reach::No,
            "The lock has reported that it did not store the key.",
        ),
        WriteState::Expired { .. } => (
            Reach::No,
            "The write has expired and was removed from the shadow. Locks skip expired writes.",
        ),
        WriteState::Superseded { .. } => until_expiry(
            "A newer write for the same slot has replaced it on the shadow. A lock that had read it before can still execute it until it \
             expires.",
            "A newer write for the same slot has replaced it on the shadow, and it has expired.",
        ),
        WriteState::Withdrawn { .. } => until_expiry(
            "It was withdrawn from the shadow. A lock that had read it before can still execute it until it expires.",
            "It was withdrawn from the shadow, and it has expired.",
        ),
        WriteState::Aborted { .. } => (
            Reach::No,
            "The shadow does not have the write and will never accept it.",
        ),
    }
}
