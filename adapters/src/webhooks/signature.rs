//! Signatures of deliveries, as Standard Webhooks specifies them (`v1`: HMAC-SHA256).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywright_domain::model::{InvalidValue, SigningSecret};

/// The headers of a delivery.
pub const ID_HEADER: &str = "webhook-id";
/// The time of the attempt, in seconds since the Unix epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

const SECRET_PREFIX: &str = "whsec_";

/// Generates a random secret.
///
/// # Panics
/// The system has no source of randomness.
pub fn generate_secret() -> SigningSecret {
    let mut bytes = vec![0; SigningSecret::BYTES];
    getrandom::fill(&mut bytes).expect("the system has a source of randomness");
    SigningSecret::new(bytes).expect("the length is allowed")
}

/// The text of a secret, to be shown once to its owner: `whsec_` and the bytes in Base64.
pub fn secret_text(secret: &SigningSecret) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret.expose()))
}

/// Reads the text of a secret, with or without its prefix.
///
/// # Errors
/// It is not Base64 of 24 to 64 bytes.
pub fn read_secret(text: &str) -> Result<SigningSecret, InvalidValue> {
    let encoded = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
    let bytes = STANDARD.decode(encoded).map_err(|_| InvalidValue {
        what: "secret",
        rule: "must be whsec_ and 24 to 64 bytes in Base64",
    });
    SigningSecret::new(bytes?)
}

/// The value of [`SIGNATURE_HEADER`]: a signature by each secret, in their order.
pub fn sign<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    timestamp: u64,
    body: &[u8],
) -> String {
    let mut signatures = String::new();
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        STANDARD.encode_string(context.sign(), &mut signatures);
    }
    signatures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn signs_the_published_example() {
        let secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign([&secret], id, 1_614_265_330, body), expected);
        let both = sign([&secret, &secret], id, 1_614_265_330, body);
        assert_eq!(both, format!("{expected} {expected}"));
    }

    #[test]
    fn secrets_are_read_back_from_their_text() {
        let secret = generate_secret();
        let text = secret_text(&secret);
        assert!(text.starts_with("whsec_"), "{text}");
        assert_eq!(read_secret(&text), Ok(secret));
        assert!(read_secret("whsec_x").is_err() && read_secret("whsec_AAAA").is_err());
        assert_ne!(generate_secret(), generate_secret());
    }
}
