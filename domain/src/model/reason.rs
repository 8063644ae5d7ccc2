//! Reasons why writes fail, with retry advice for clients.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::DeviceCode;

/// The reason why a write failed, at the lock or on the way to its shadow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The slot holds another key, which the lock does not overwrite.
    SlotOccupied,
    /// The lock already holds this key in another slot.
    DuplicateKey,
    /// The lock has no slot with this index.
    IndexOutOfRange,
    /// The lock has no free slot.
    NoSpace,
    /// The lock cannot write keys.
    Unsupported,
    /// The lock was busy with another operation.
    DeviceBusy,
    /// No card was presented in time.
    NoCardPresent,
    /// The card was removed too early.
    CardRemoved,
    /// The lock cannot encode this kind of card.
    CardIncompatible,
    /// The encoder did not finish in time.
    EncoderTimeout,
    /// The lock was bound to another thing while the write was open.
    Rebound,
    /// An error code of the lock that is none of the other reasons.
    DeviceError(DeviceCode),
    /// The shadow had another version than expected, repeatedly.
    ShadowConflict,
    /// The shadow document would exceed the size limit of the shadow service.
    ShadowTooLarge,
    /// The shadow service limits the rate of requests.
    Throttled,
    /// The shadow service could not be reached or could not answer.
    Unavailable,
    /// The shadow service rejected our credentials or permissions.
    NotAuthorized,
    /// It could not be determined in time whether the shadow accepted the update. It certainly never will.
    OutcomeUnknown,
}

/// Advice for a client that still wants the key in the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Do not retry: the same request will never succeed.
    Never,
    /// Retry after something at the lock or in the request has changed.
    AfterChange,
    /// Retry with growing pauses.
    BackOff,
    /// Retry after this time.
    After(Duration),
}

impl Retry {
    /// Every name that [`Retry::as_str`] returns.
    pub const NAMES: [&'static str; 4] = ["never", "after-change", "back-off", "retry-after"];

    /// The name of the class in the HTTP contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::AfterChange => "after-change",
            Self::BackOff => "back-off",
            Self::After(_) => "retry-after",
        }
    }
}

/// The names of all reasons without data.
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

    /// The name in the HTTP contract and in the device contract.
    pub fn name(&self) -> &'static str {
        NAMED
            .iter()
            .find(|(_, reason)| reason == self)
            .map_or("DeviceError", |(name, _)| name)
    }

    /// The lock's error code, if the reason is a device error.
    pub fn device_code(&self) -> Option<&DeviceCode> {
        match self {
            Self::DeviceError(code) => Some(code),
            _ => None,
        }
    }

    /// Retry advice for clients.
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

    /// Reads the `reason` and the optional `code` of a lock's result. An unknown reason becomes a device error, and so does one
    /// that only the way to the shadow can cause.
    pub fn from_device(reason: &str, code: Option<&str>) -> Self {
        match reason.parse() {
            Ok(reason) if !Self::is_dispatch(&reason) => reason,
            _ => Self::DeviceError(DeviceCode::lossy(code.unwrap_or(reason))),
        }
    }

    /// Whether the write failed on the way to the shadow, and not at the lock.
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

    /// Parses the name of a reason without data. The error is empty: the name is unknown.
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
