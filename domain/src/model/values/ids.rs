//! Numbers and identifiers.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::invalid::{InvalidValue, MAX_JSON_INTEGER};

/// A lock's numeric id: 1 to 2⁵³ − 1 (HTTP contract, path `id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(NonZeroU64);

impl LockId {
    const INVALID: InvalidValue = InvalidValue {
        what: "lock id",
        rule: "must be an integer from 1 to 9007199254740991",
    };

    /// The lock id with this number.
    ///
    /// # Errors
    /// The number is 0 or above 2⁵³ − 1.
    pub const fn new(id: u64) -> Result<Self, InvalidValue> {
        match NonZeroU64::new(id) {
            Some(id) if id.get() <= MAX_JSON_INTEGER => Ok(Self(id)),
            _ => Err(Self::INVALID),
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for LockId {
    type Err = InvalidValue;

    /// Digits only: no sign, no white space, no leading zero, so that one lock has one address.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.starts_with('0') {
            return Err(Self::INVALID);
        }
        text.parse().map_err(|_| Self::INVALID).and_then(Self::new)
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of a key slot of a lock: 0 to 2⁵³ − 1 (HTTP contract, `keyIndexNumber`). Rule 3 compares it with the lock's
/// capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIndex(u64);

impl KeyIndex {
    /// The key index with this number.
    ///
    /// # Errors
    /// The number is above 2⁵³ − 1.
    pub const fn new(index: u64) -> Result<Self, InvalidValue> {
        if index <= MAX_JSON_INTEGER {
            Ok(Self(index))
        } else {
            Err(InvalidValue {
                what: "keyIndexNumber",
                rule: "must be an integer from 0 to 9007199254740991",
            })
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The length of the text form, in bytes.
            pub const TEXT_LEN: usize = UUID_LEN;

            /// The id with these 128 bits. Every number is valid.
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// The 128 bits.
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                parse_uuid(text).map(Self).ok_or(InvalidValue {
                    what: $what,
                    rule: "must be a UUID of 36 characters in lower case",
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid! {
    /// The id of one key write: a UUID, in its canonical lower-case text form (RFC 9562).
    ///
    /// It identifies the write in the store, its entry on the shadow and its result there.
    WriteId, "write id"
}
uuid! {
    /// The id of a webhook: a UUID, in its canonical lower-case text form (RFC 9562).
    WebhookId, "webhook id"
}

/// The length of the text form of a UUID, in bytes.
const UUID_LEN: usize = 36;

/// The bits of a UUID in lower case.
fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != UUID_LEN {
        return None;
    }
    let mut bits = 0_u128;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        bits = bits << 4 | u128::from(digit);
    }
    Some(bits)
}

fn write_uuid(bits: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Every answer, token and shadow contains ids, and this is faster than the formatter of hexadecimal numbers.
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = [b'-'; UUID_LEN];
    let mut rest = bits;
    for at in (0..UUID_LEN).rev() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            text[at] = DIGITS[(rest & 0xf) as usize];
            rest >>= 4;
        }
    }
    f.write_str(str::from_utf8(&text).unwrap_or_default())
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The next higher number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The position of an event in the stream of its lock: 1, 2, 3 and so on, without gaps. The version of a lock is that of its
    /// last event.
    LockVersion
}
counter! {
    /// A number of a lock that every save and every take-over increments, also a save without events. A save names the
    /// revision that its decision was based on, and the store applies it only at exactly that revision.
    Revision
}
counter! {
    /// The `version` of a device shadow. AWS counts from 1, and starts again some time after a shadow is deleted, so versions
    /// are only compared for equality.
    ShadowVersion
}
counter! {
    /// A number of an intent: 1 for the request itself, one more after each take-over.
    Epoch
}
counter! {
    /// Orders the writes of one lock on its shadow (`seq`). The lock executes them in ascending order.
    Sequence
}
