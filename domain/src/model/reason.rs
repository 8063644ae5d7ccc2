//! Why a write failed, and what a client can do about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::DeviceCode;

/// Why a write failed: at the lock, or on the way to its shadow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The slot holds another key that the lock does not overwrite.
    SlotOccupied,
    /// The lock holds this key already, in another slot.
    DuplicateKey,
    /// The lock has no such slot.
    IndexOutOfRange,
    /// No slot is free.
    NoSpace,
    /// The lock cannot write keys.
    Unsupported,
    /// The lock was doing something else.
    DeviceBusy,
    /// Nobody presented a card in time.
    NoCardPresent,
    /// The card was taken away too early.
    CardRemoved,
    /// The card is of a kind that the lock cannot encode.
    CardIncompatible,
    /// The encoder did not finish in time.
    EncoderTimeout,
    /// The lock was bound to another thing while the write was open.
    Rebound,
    /// The lock's own code.
    DeviceError(DeviceCode),
    /// The shadow kept changing under the update.
    ShadowConflict,
    /// The shadow document would be too large.
    ShadowTooLarge,
    /// The shadow service asked for fewer requests.
    Throttled,
    /// The shadow service could not be reached or could not answer.
    Unavailable,
    /// The shadow service does not let us in.
    NotAuthorized,
    /// Whether the shadow took the update could not be found out.
    OutcomeUnknown,
}

/// What a client that wants the key in the lock should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will never succeed.
    Never,
    /// After something at the lock or in the request has changed.
    AfterChange,
    /// Later, with growing pauses.
    BackOff,
    /// After this time.
    After(Duration),
}

impl Retry {
    /// Every class, as clients read it.
    pub const NAMES: [&'static str; 4] = ["never", "after-change", "back-off", "retry-after"];

    /// The class as clients read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::AfterChange => "after-change",
            Self::BackOff => "back-off",
            Self::After(_) => "retry-after",
        }
    }
}

/// Every reason that has no data of its own, with its name: the one table of names.
const NAMED: [(&str, FailureReason); 17] = [
    ("SlotOccupied", FailureReason::SlotOccupied),
    ("DuplicateKey", FailureReason::DuplicateKey),
    ("IndexOutOfRange", FailureReason::IndexOutOfRange),
    ("NoSpace", FailureReason::NoSpace),
    ("Unsupported", FailureReason::Unsupported),
    ("DeviceBusy", FailureReason::DeviceBusy),
    ("NoCardPresent", FailureReason::NoCardPresent),
    ("CardRemoved", FailureReason::CardRemoved),
    ("CardIncompatible", FailureReason::CardIncompatible),
    ("EncoderTimeout", FailureReason::EncoderTimeout),
    ("Rebound", FailureReason::Rebound),
    ("ShadowConflict", FailureReason::ShadowConflict),
    ("ShadowTooLarge", FailureReason::ShadowTooLarge),
    ("Throttled", FailureReason::Throttled),
    ("Unavailable", FailureReason::Unavailable),
    ("NotAuthorized", FailureReason::NotAuthorized),
    ("OutcomeUnknown", FailureReason::OutcomeUnknown),
];

impl FailureReason {
    /// Every name that [`FailureReason::name`] returns.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let named = NAMED.iter().map(|(name, _)| *name);
        named.chain(std::iter::once("DeviceError"))
    }

    /// The name that clients and locks use.
    pub fn name(&self) -> &'static str {
        NAMED
            .iter()
            .find(|(_, reason)| reason == self)
            .map_or("DeviceError", |(name, _)| name)
    }

    /// The lock's own code, where it gave one.
    pub fn device_code(&self) -> Option<&DeviceCode> {
        match self {
            Self::DeviceError(code) => Some(code),
            _ => None,
        }
    }

    /// What a client should do next.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unsupported | Self::IndexOutOfRange | Self::ShadowTooLarge => Retry::Never,
            Self::SlotOccupied
            | Self::DuplicateKey
            | Self::NoSpace
            | Self::NoCardPresent
            | Self::CardRemoved
            | Self::CardIncompatible
            | Self::Rebound
            | Self::DeviceError(_)
            | Self::NotAuthorized => Retry::AfterChange,
            Self::EncoderTimeout
            | Self::ShadowConflict
            | Self::Unavailable
            | Self::OutcomeUnknown => Retry::BackOff,
            Self::DeviceBusy => Retry::After(Duration::from_secs(5)),
            Self::Throttled => Retry::After(Duration::from_secs(1)),
        }
    }

    /// A lock's report in words: `reason`, and its own `code` where it gives one. A reason that is
    /// not ours, or is one that only the way to the shadow can have, is kept as a device error.
    pub fn from_device(reason: &str, code: Option<&str>) -> Self {
        match reason.parse() {
            Ok(reason) if !Self::is_dispatch(&reason) => reason,
            _ => Self::DeviceError(DeviceCode::lossy(code.unwrap_or(reason))),
        }
    }

    /// Whether it arose on the way to the shadow, and not at the lock.
    pub fn is_dispatch(&self) -> bool {
        matches!(
            self,
            Self::ShadowConflict
                | Self::ShadowTooLarge
                | Self::Throttled
                | Self::Unavailable
                | Self::NotAuthorized
                | Self::OutcomeUnknown
        )
    }
}

impl FromStr for FailureReason {
    type Err = ();

    /// One of the reasons without data.
    fn from_str(name: &str) -> Result<Self, ()> {
        let named = NAMED.iter().find(|(known, _)| *known == name);
        named.map(|(_, reason)| reason.clone()).ok_or(())
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device_code() {
            Some(code) => write!(f, "DeviceError({code})"),
            None => f.write_str(self.name()),
        }
    }
}
