//! Text values.

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
            /// The maximum length, in bytes.
            pub const MAX_BYTES: usize = $max;

            /// Validates the text.
            ///
            /// # Errors
            #[doc = concat!("The text violates the rule: `", $what, " ", $rule, "`.")]
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
    /// What a webhook is for, in the words of its owner.
    WebhookDescription, "description", 256, printable, "must be 1 to 256 bytes of text without control characters"
}
text! {
    /// The id of a key, as the client names it. Any text is allowed, not only UUIDs (HTTP contract, `keyUuid`).
    KeyUuid, "keyUuid", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The lock's UUID, which the vendor's events carry beside the numeric id.
    LockUuid, "lock uuid", 64, printable, "must be 1 to 64 bytes of text without control characters"
}
text! {
    /// A lock's serial number.
    SerialNumber, "serialNumber", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The id of a user: the `sub` of the user's token.
    UserId, "user id", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The id of a caller, as a service that embeds this domain names it. Two callers have different ids.
    SubjectId, "subject id", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The id of an organization that owns locks.
    OrganizationId, "organization id", 128, printable, "must be 1 to 128 bytes of text without control characters"
}
text! {
    /// The name of an AWS IoT thing (AWS IoT API, `thingName`).
    ThingName, "thing name", 128,
    |c| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-'),
    "must be 1 to 128 characters of a-z, A-Z, 0-9, colon, underscore or hyphen"
}
text! {
    /// A client's key of one request, which lets the client repeat the request safely
    /// (draft-ietf-httpapi-idempotency-key-header).
    IdempotencyKey, "Idempotency-Key", 255, |c| c.is_ascii_graphic() || c == ' ',
    "must be 1 to 255 printable ASCII characters"
}
text! {
    /// The id of a request, by which logs and events name it.
    RequestId, "request id", 64, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
    "must be 1 to 64 characters of a-z, A-Z, 0-9, hyphen, underscore or dot"
}
text! {
    /// An error code of a device, stored as received.
    DeviceCode, "device error code", 64, printable, "must be 1 to 64 bytes of text without control characters"
}

impl DeviceCode {
    /// Makes a valid code of any text: removes control characters, and cuts the text at 64 bytes. Text without any valid
    /// character becomes `unspecified`. So no report is lost because of its error code.
    pub fn lossy(text: &str) -> Self {
        let mut code = String::new();
        for c in text.chars().filter(|c| printable(*c)) {
            if code.len() + c.len_utf8() > Self::MAX_BYTES {
                break;
            }
            code.push(c);
        }
        Self::new(&code).unwrap_or_else(|_| Self("unspecified".into()))
    }
}

/// The unique id of one request to the shadow service. An answer belongs to the request with the same token.
///
/// Its text is `<operation>.<epoch>.<n>`, at most 64 bytes (AWS IoT, `clientToken`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientToken(String);

impl ClientToken {
    /// The token of request number `n` of `operation` in `epoch`.
    pub fn new(operation: WriteId, epoch: Epoch, n: u32) -> Self {
        Self(format!("{operation}.{epoch}.{n}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
