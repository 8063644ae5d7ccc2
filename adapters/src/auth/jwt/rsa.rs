//! RSA public keys, and the checks that reject unsafe ones.

use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};

use super::algorithm::Algorithm;
use super::big_endian::{bit_length, is_odd, without_leading_zeros};
use super::key_error::{InvalidKey, MAX_RSA_BITS, MIN_RSA_BITS};

/// The maximum length of an exponent in bits that the library supports.
const MAX_EXPONENT_BITS: usize = 33;

/// Makes a key for an RSA `algorithm` from its big-endian modulus and exponent, with or without leading zero octets.
pub(super) fn read(
    algorithm: Algorithm,
    modulus: &[u8],
    exponent: &[u8],
) -> Result<ParsedPublicKey, InvalidKey> {
    let (modulus, exponent) = (
        without_leading_zeros(modulus),
        without_leading_zeros(exponent),
    );
    let size = bit_length(modulus);
    if size < MIN_RSA_BITS {
        return Err(InvalidKey::ShortRsa);
    }
    if size > MAX_RSA_BITS {
        return Err(InvalidKey::LongRsa);
    }
    // With an exponent of 1, every message is its own signature.
    if !is_odd(exponent) || exponent == [1] || bit_length(exponent) > MAX_EXPONENT_BITS {
        return Err(InvalidKey::RsaExponent);
    }
    if has_roca_fingerprint(modulus) {
        return Err(InvalidKey::Roca);
    }
    let key = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    let key = key.to_parsed_public_key(parameters(algorithm));
    match key {
        Ok(key) if is_odd(modulus) => Ok(key),
        _ => Err(InvalidKey::NotPublicKey(algorithm)),
    }
}

fn parameters(algorithm: Algorithm) -> &'static RsaParameters {
    match algorithm {
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => &RSA_PKCS1_2048_8192_SHA256,
    }
}

/// Modulus and exponent of a key in PKCS#1, which is a sequence of two integers.
pub(super) fn components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_value(der, 0x30)?;
    let (modulus, rest) = der_value(sequence, 0x02)?;
    let (exponent, _) = der_value(rest, 0x02)?;
    Some((modulus, exponent))
}

/// The content of the first DER element, if it has this tag, and the bytes after the element.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |n, digit| n << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

/// The primes of the published test for ROCA.
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Both primes of a key that an affected Infineon chip made are powers of 65537 modulo the product of the first primes
/// (Nemec et al., "The Return of Coppersmith's Attack", CVE-2017-15361), and so is the modulus modulo each of them. About one
/// in 2^27 other keys matches, too.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    ROCA_PRIMES.into_iter().all(|prime| {
        let rest = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let generator = 65537 % prime;
        let mut power = 1;
        for _ in 0..prime {
            if power == rest {
                return true;
            }
            power = power * generator % prime;
        }
        false
    })
}
