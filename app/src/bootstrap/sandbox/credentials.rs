//! The credentials of the sandbox. They are kept in the data folder, and replaced when they are no longer valid.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::auth::{
    ApiKey, ApiKeyRecord, ApiKeys, JwtSettings, JwtVerifier, VerificationKey, read_operators,
    write_api_keys, write_private,
};
use keywright_domain::model::{
    Identity, Operator, OperatorRole, OrganizationId, SubjectId, Timestamp,
};
use keywright_domain::ports::{Clock, Secret};
use keywright_sandbox::Demo;
use serde_json::json;

use crate::admin::OPERATORS_FILE;
use crate::bootstrap::api_key_store::ApiKeyStore;

/// The file of the private key that signs the sandbox's tokens, in the data folder.
pub(crate) const TOKEN_KEY_FILE: &str = "token-key.pk8";

/// `iss` and `aud` of the sandbox's tokens.
const ISSUER: &str = "https://sandbox.keywright.invalid";
const AUDIENCE: &str = "keywright-sandbox";

/// The claim that holds the organization.
const ORGANIZATION_CLAIM: &str = "org";

/// How long the demo user's token is valid.
const TOKEN_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The name of the sandbox's operator.
const OPERATOR: &str = "sandbox";

/// The credentials in `sandbox.env`, which also contains the URL. All of them are secrets.
pub(crate) struct DemoCredentials {
    pub(crate) token: String,
    pub(crate) api_key: String,
    pub(crate) operator_key: String,
}

/// The key pair that signs the sandbox's tokens.
pub(crate) struct TokenKey {
    pair: EcdsaKeyPair,
    private: Vec<u8>,
}

impl TokenKey {
    /// Reads the key pair, or generates it if the file is missing.
    ///
    /// # Errors
    /// The file cannot be read or written; the text names it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::try_open(path)
            .with_context(|| format!("cannot use {} as a key for tokens", path.display()))
    }

    fn try_open(path: &Path) -> anyhow::Result<Self> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = match fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let der = EcdsaKeyPair::generate(algorithm)?.to_pkcs8v1()?;
                write_private(path, der.as_ref())?;
                der.as_ref().to_vec()
            }
            read => read?,
        };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &private)?;
        Ok(Self { pair, private })
    }

    /// The public key, as an uncompressed point of the curve.
    fn public_point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A token of a user, or of a service of an organization. It is valid for `valid_for` from `issued_at`, in seconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// It could not be signed.
    pub(crate) fn sign(
        &self,
        user: &str,
        organization: Option<&str>,
        issued_at: u64,
        valid_for: Duration,
    ) -> anyhow::Result<String> {
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": user,
            "iat": issued_at, "exp": issued_at + valid_for.as_secs(),
        });
        if let Some(organization) = organization {
            claims[ORGANIZATION_CLAIM] = json!(organization);
        }
        let key = EncodingKey::from_ec_der(&self.private);
        encode(&Header::new(Algorithm::ES256), &claims, &key)
            .context("the sandbox's token could not be signed")
    }
}

/// The credentials of the sandbox, and the verifier of its tokens. Keeps each credential of an earlier run that is still valid, and
/// replaces the others. A new API key ends all earlier API keys of the demo organization.
///
/// # Errors
/// A file or the store of API keys cannot be used.
pub(crate) async fn open_credentials(
    data: &Path,
    url: &str,
    clock: &dyn Clock,
    stored: &ApiKeyStore,
) -> anyhow::Result<(DemoCredentials, Arc<JwtVerifier>)> {
    let env_path = data.join("sandbox.env");
    let token_key = TokenKey::open(&data.join(TOKEN_KEY_FILE))?;
    let settings = JwtSettings {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        organization_claim: ORGANIZATION_CLAIM.into(),
    };
    let public_key = VerificationKey::es256_point(None, &token_key.public_point())?;
    let verifier = JwtVerifier::new(vec![public_key], settings)?;
    let mut records = stored.read().await?;
    let api_keys = ApiKeys::new(records.clone());
    let (now, kept) = (clock.now(), read_env(&env_path));
    let kept_operator_key = kept.as_ref().map(|kept| kept.operator_key.clone());

    let is_valid = |token: &String| verifier.verify(token.as_bytes(), now).is_ok();
    let token = match kept.as_ref().map(|k| k.token.clone()).filter(is_valid) {
        Some(token) => token,
        None => token_key.sign(Demo::USER, None, now.as_secs(), TOKEN_TIME)?,
    };
    let is_valid = |key: &String| api_keys.verify(&Secret::new(&**key), now).is_ok();
    let api_key = match kept.map(|k| k.api_key).filter(is_valid) {
        Some(key) => key,
        None => {
            let key = ApiKey::generate();
            let demo_identity = Identity::Organization(OrganizationId::new(Demo::ORGANIZATION)?);
            let is_demo = |record: &&mut ApiKeyRecord| record.identity == demo_identity;
            for old in records.iter_mut().filter(is_demo) {
                old.expires_at = Some(old.expires_at.map_or(now, |end| end.min(now)));
            }
            records.push(key.record(demo_identity, None));
            stored.write(&records).await?;
            key.expose().to_owned()
        }
    };
    let operators = data.join(OPERATORS_FILE);
    let operator_key = open_operator_key(&operators, kept_operator_key, now)?;
    let demo = DemoCredentials {
        token,
        api_key,
        operator_key,
    };
    write_env(&env_path, url, &demo)
        .with_context(|| format!("cannot write {}", env_path.display()))?;
    Ok((demo, Arc::new(verifier)))
}

/// The key of the sandbox's operator: that of an earlier run if it is still valid, otherwise a new one.
fn open_operator_key(path: &Path, kept: Option<String>, now: Timestamp) -> anyhow::Result<String> {
    let mut records = read_operators(path)?;
    let known = ApiKeys::new(records.clone());
    let is_valid = |key: &String| known.verify(&Secret::new(&**key), now).is_ok();
    if let Some(key) = kept.filter(is_valid) {
        return Ok(key);
    }
    let operator = Identity::Operator(Operator {
        name: SubjectId::new(OPERATOR)?,
        role: OperatorRole::Operator,
    });
    let key = ApiKey::generate();
    records.retain(|record| record.identity != operator);
    records.push(key.record(operator, None));
    write_api_keys(path, &records)?;
    Ok(key.expose().to_owned())
}

/// The credentials of an earlier run, valid or not.
fn read_env(path: &Path) -> Option<DemoCredentials> {
    let text = fs::read_to_string(path).ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix('=').map(str::to_owned)
    };
    Some(DemoCredentials {
        token: value("KEYWRIGHT_TOKEN")?,
        api_key: value("KEYWRIGHT_API_KEY")?,
        operator_key: value("KEYWRIGHT_OPERATOR_KEY").unwrap_or_default(),
    })
}

/// Writes the credentials for scripts and for the next run.
fn write_env(path: &Path, url: &str, credentials: &DemoCredentials) -> std::io::Result<()> {
    let DemoCredentials {
        token,
        api_key,
        operator_key,
    } = credentials;
    let text = format!(
        "KEYWRIGHT_URL={url}\nKEYWRIGHT_TOKEN={token}\nKEYWRIGHT_API_KEY={api_key}\nKEYWRIGHT_OPERATOR_KEY={operator_key}\n"
    );
    write_private(path, text.as_bytes())
}
