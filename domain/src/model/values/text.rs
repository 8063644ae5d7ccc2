//! Values that are text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::ids::{Epoch, WriteId};
use super::invalid::InvalidValue;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $valid:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The greatest length in bytes.
            pub const MAX_BYTES: usize = $max;

            /// # Errors
            #[doc = concat!("`", $what, " ", $rule, "`.")]
            pub fn new(text: &str) -> Result<Self, InvalidValue> {
                let valid: fn(char) -> bool = $valid;
                if text.is_empty() || text.len() > Self::MAX_BYTES || !text.chars().all(valid) {
                    return Err(InvalidValue { what: $what, rule: $rule });
                }
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn printable(c: char) -> bool {
    !c.is_control()
}

text! {
    /// The key to write, as the client names it. No UUID format is promised (HTTP contract, `keyUuid`).
    KeyUuid, "keyUuid", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The lock's own UUID, which the vendor's events carry beside the numeric id.
    LockUuid, "lock uuid", 64, printable, "must be 1 to 64 bytes of text without control characters"
}
text! {
    /// A lock's serial number.
    SerialNumber, "serialNumber", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// A person: the `sub` of a user's token.
    UserId, "user id", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// An organization that owns locks.
    OrganizationId, "organization id", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// An AWS IoT thing: 1 to 128 of `a-z A-Z 0-9 : _ -` (AWS IoT API, `thingName`).
    ThingName, "thing name", 128,
    |c| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-'),
    "must be 1 to 128 characters of a-z, A-Z, 0-9, colon, underscore or hyphen"
}
text! {
    /// What a client calls one request of its own, so that it may send it again
    /// (draft-ietf-httpapi-idempotency-key-header).
    IdempotencyKey, "Idempotency-Key", 255, |c| c.is_ascii_graphic() || c == ' ',
    "must be 1 to 255 printable ASCII characters"
}
text! {
    /// A device's own error code, kept as it came.
    DeviceCode, "device error code", 64, printable, "must be 1 to 64 bytes of text without control characters"
}

impl DeviceCode {
    /// The longest valid code that `text` starts with, `unspecified` where there is none: a lock's
    /// report is never lost because its firmware is talkative.
    pub fn lossy(text: &str) -> Self {
        let mut kept = String::new();
        for c in text.chars().filter(|c| printable(*c)) {
            if kept.len() + c.len_utf8() > Self::MAX_BYTES {
                break;
            }
            kept.push(c);
        }
        Self::new(&kept).unwrap_or_else(|_| Self("unspecified".into()))
    }
}

/// Names one request to a shadow, so that its answer cannot pass for that of another request:
/// `<operation>.<epoch>.<n>`, at most 64 bytes (AWS IoT, `clientToken`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientToken(String);

impl ClientToken {
    /// The token of the `n`-th request that `operation` makes in `epoch`.
    pub fn new(operation: WriteId, epoch: Epoch, n: u32) -> Self {
        Self(format!("{operation}.{epoch}.{n}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
