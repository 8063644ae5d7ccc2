//! The demo world's credentials, which stay the same for as long as its data is kept.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::auth::{
    ApiKey, ApiKeyRecord, ApiKeys, JwtSettings, JwtVerifier, VerificationKey, write_private,
};
use keywright_domain::model::{Identity, OrganizationId};
use keywright_domain::ports::{Clock, Secret};
use keywright_sandbox::Demo;
use serde_json::json;

use crate::bootstrap::{ApiKeyStore, Error};

/// The file of the key for the sandbox's tokens, in the folder of data.
pub(crate) const TOKEN_KEY: &str = "token-key.pk8";

/// `iss` and `aud` of the demo's tokens.
const ISSUER: &str = "https://sandbox.keywright.invalid";
const AUDIENCE: &str = "keywright-sandbox";

/// The claim that makes a token an organization's.
const ORGANIZATION_CLAIM: &str = "org";

/// How long the demo user's token is good.
const TOKEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

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
    fn public_point(&self) -> Vec<u8> {
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

/// The demo world's credentials, and what verifies its tokens.
pub(crate) struct OpenedCredentials {
    pub(crate) demo: DemoCredentials,
    pub(crate) tokens: Arc<JwtVerifier>,
}

/// Credentials that an earlier run left, where they are still valid; else new ones.
///
/// # Errors
/// A file or the store of API keys cannot be used.
pub(crate) async fn open_credentials(
    data: &Path,
    url: &str,
    clock: &dyn Clock,
    stored: &ApiKeyStore,
) -> Result<OpenedCredentials, Error> {
    let env_path = data.join("sandbox.env");
    let token_key = TokenKey::open(&data.join(TOKEN_KEY))?;
    let settings = JwtSettings {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        organization_claim: ORGANIZATION_CLAIM.into(),
    };
    let point = VerificationKey::es256_point(None, &token_key.public_point())?;
    let tokens = JwtVerifier::new(vec![point], settings)?;
    let mut records = stored.read().await?;
    let api_keys = ApiKeys::new(records.clone());
    let (now, kept) = (clock.now(), read_env(&env_path));

    let good = |token: &String| tokens.verify(token.as_bytes(), now).is_ok();
    let token = match kept.as_ref().map(|k| k.token.clone()).filter(good) {
        Some(token) => token,
        None => {
            let bearer = Bearer {
                user: Demo::USER,
                organization: None,
            };
            token_key.sign(bearer, now.as_secs(), TOKEN_TIME)?
        }
    };
    let good = |key: &String| api_keys.verify(&Secret::new(&**key), now).is_ok();
    let api_key = match kept.map(|k| k.api_key).filter(good) {
        Some(key) => key,
        None => {
            let key = ApiKey::generate();
            let demo = Identity::Organization(OrganizationId::new(Demo::ORGANIZATION)?);
            let demo_s = |record: &&mut ApiKeyRecord| record.identity == demo;
            for old in records.iter_mut().filter(demo_s) {
                old.expires_at = Some(old.expires_at.map_or(now, |end| end.min(now)));
            }
            records.push(key.record(demo, None));
            stored.write(&records).await?;
            key.expose().to_owned()
        }
    };
    let demo = DemoCredentials { token, api_key };
    write_env(&env_path, url, &demo)
        .map_err(|e| format!("cannot write {}: {e}", env_path.display()))?;
    Ok(OpenedCredentials {
        demo,
        tokens: Arc::new(tokens),
    })
}

/// The credentials that an earlier run left, whether or not they are still good.
fn read_env(path: &Path) -> Option<DemoCredentials> {
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
fn write_env(path: &Path, url: &str, credentials: &DemoCredentials) -> std::io::Result<()> {
    let DemoCredentials { token, api_key } = credentials;
    let text =
        format!("KEYWRIGHT_URL={url}\nKEYWRIGHT_TOKEN={token}\nKEYWRIGHT_API_KEY={api_key}\n");
    write_private(path, text.as_bytes())
}
