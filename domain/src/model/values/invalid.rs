//! The error of an invalid value.

/// The largest integer that every JSON parser represents exactly, 2⁵³ − 1 (RFC 8259, section 6).
pub const MAX_JSON_INTEGER: u64 = (1 << 53) - 1;

/// An input is not a valid value of its type.
///
/// The error names the value and the rule, never the input itself, because an input may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidValue {
    /// The name of the value as clients know it, such as `keyUuid` or `lock id`.
    pub what: &'static str,
    /// The rule that the input violates, as the end of a sentence that starts with `what`.
    pub rule: &'static str,
}
