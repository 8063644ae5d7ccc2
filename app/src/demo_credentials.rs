//! The demo world's credentials, which stay the same for as long as its data is kept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::bootstrap::write_private;

/// `iss` and `aud` of the demo's tokens.
pub(crate) const ISSUER: &str = "https://sandbox.keywright.invalid";
pub(crate) const AUDIENCE: &str = "keywright-sandbox";

/// The claim that makes a token an organization's.
pub(crate) const ORGANIZATION_CLAIM: &str = "org";

/// How long the demo user's token is good.
pub(crate) const TOKEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Whose token it is.
pub(crate) struct Bearer<'a> {
    pub(crate) user: &'a str,
    /// For a service of it.
    pub(crate) organization: Option<&'a str>,
}

/// What `sandbox.env` holds. Both are secrets.
pub(crate) struct DemoCredentials {
    pub(crate) token: String,
    pub(crate) api_key: String,
}

/// The key pair that signs the demo's tokens.
pub(crate) struct TokenKey {
    pair: EcdsaKeyPair,
    private: Vec<u8>,
}

impl TokenKey {
    /// Reads the key, which is made where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let refuse = |e: &dyn std::fmt::Display| {
            format!("cannot use {} as a key for tokens: {e}", path.display())
        };
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = match fs::read(path) {
            Ok(private) => private,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let pair = EcdsaKeyPair::generate(algorithm).map_err(|e| refuse(&e))?;
                let der = pair.to_pkcs8v1().map_err(|e| refuse(&e))?;
                write_private(path, der.as_ref()).map_err(|e| refuse(&e))?;
                der.as_ref().to_vec()
            }
            Err(e) => return Err(refuse(&e)),
        };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &private).map_err(|e| refuse(&e))?;
        Ok(Self { pair, private })
    }

    /// The public half, as a point of the curve.
    pub(crate) fn public_point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A token that is good from `now`, in epoch seconds, for so long.
    pub(crate) fn sign(
        &self,
        bearer: Bearer<'_>,
        now: u64,
        good_for: Duration,
    ) -> Result<String, String> {
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": bearer.user,
            "iat": now, "exp": now + good_for.as_secs(),
        });
        if let Some(organization) = bearer.organization {
            claims[ORGANIZATION_CLAIM] = json!(organization);
        }
        let key = EncodingKey::from_ec_der(&self.private);
        encode(&Header::new(Algorithm::ES256), &claims, &key)
            .map_err(|_| "the demo's token could not be signed".to_owned())
    }
}

/// The credentials that an earlier run left, whether or not they are still good.
pub(crate) fn read_env(path: &Path) -> Option<DemoCredentials> {
    let text = fs::read_to_string(path).ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix('=').map(str::to_owned)
    };
    Some(DemoCredentials {
        token: value("KEYWRIGHT_TOKEN")?,
        api_key: value("KEYWRIGHT_API_KEY")?,
    })
}

/// Leaves them for scripts and for the next run.
pub(crate) fn write_env(
    path: &Path,
    url: &str,
    credentials: &DemoCredentials,
) -> std::io::Result<()> {
    let DemoCredentials { token, api_key } = credentials;
    let text =
        format!("KEYWRIGHT_URL={url}\nKEYWRIGHT_TOKEN={token}\nKEYWRIGHT_API_KEY={api_key}\n");
    write_private(path, text.as_bytes())
}
