//! Unsigned integers as big-endian octets.

/// The number without leading zero octets.
pub(super) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The number in exactly `size` octets; `None` if it needs more. An EC coordinate must have exactly `size` octets (RFC 7518,
/// 6.2.1.2). Some issuers add a leading zero octet, others leave leading zero octets out; both are accepted.
pub(super) fn with_size(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let digits = without_leading_zeros(number);
    let mut padded = vec![0; size.checked_sub(digits.len())?];
    padded.extend_from_slice(digits);
    Some(padded)
}

/// Whether the number is odd.
pub(super) fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte % 2 == 1)
}

/// The number of bits. `number` must have no leading zero octets.
pub(super) fn bit_length(number: &[u8]) -> usize {
    number
        .first()
        .map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}
