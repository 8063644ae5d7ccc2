//! The error of an invalid value.

/// The largest integer that every JSON reader holds exactly, 2⁵³ − 1 (RFC 8259, section 6).
pub const MAX_JSON_INTEGER: u64 = (1 << 53) - 1;

/// An input that is not a value of its type.
///
/// It names the value and the rule, never the input itself: inputs may be secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidValue {
    /// What was being read, in the words of a client: `keyUuid`, `lock id`, …
    pub what: &'static str,
    /// The rule that the input breaks, as the end of a sentence that starts with `what`.
    pub rule: &'static str,
}
