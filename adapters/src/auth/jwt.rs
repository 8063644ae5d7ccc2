//! JSON Web Tokens (RFC 7519) with one configured key.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use keywright_domain::ports::{AuthError, Secret};
use keywright_domain::principal::Identity;
use keywright_domain::values::{OrganizationId, Timestamp, UserId};
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// The shortest shared secret, in bytes: the length of the hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// How far the issuer's clock may be ahead or behind, in seconds.
const LEEWAY: u64 = 30;

/// The key that tokens must be signed with. It alone decides the algorithm.
pub enum VerificationKey {
    /// ES256, by a public key in PEM.
    Es256Pem(Vec<u8>),
    /// ES256, by a point of the curve P-256 in its uncompressed form.
    Es256Point(Vec<u8>),
    /// HS256, by a secret that issuer and verifier share.
    Hs256(Secret),
}

/// What a token must say.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`, or one of it.
    pub audience: String,
    /// The claim that makes the bearer a service of the organization that it names.
    pub organization_claim: String,
}

/// A key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVerifier {
    /// Anyone could guess it.
    #[error("a shared secret for HS256 must have at least {MIN_SECRET} bytes")]
    ShortSecret,
    /// It is none for that algorithm.
    #[error("the key is not a public key for ES256 in PEM")]
    Key,
}

/// Verifies tokens.
pub struct JwtVerifier {
    key: DecodingKey,
    validation: Validation,
    organization_claim: String,
}

impl JwtVerifier {
    /// # Errors
    /// See [`InvalidVerifier`].
    pub fn new(key: VerificationKey, settings: JwtSettings) -> Result<Self, InvalidVerifier> {
        let (algorithm, key) = match key {
            VerificationKey::Es256Pem(pem) => {
                let key = DecodingKey::from_ec_pem(&pem).map_err(|_| InvalidVerifier::Key)?;
                (Algorithm::ES256, key)
            }
            VerificationKey::Es256Point(point) => {
                (Algorithm::ES256, DecodingKey::from_ec_der(&point))
            }
            VerificationKey::Hs256(secret) if secret.expose().len() < MIN_SECRET => {
                return Err(InvalidVerifier::ShortSecret);
            }
            VerificationKey::Hs256(secret) => {
                let key = DecodingKey::from_secret(secret.expose().as_bytes());
                (Algorithm::HS256, key)
            }
        };
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[settings.issuer]);
        validation.set_audience(&[settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are checked here, by the `Clock` port.
        validation.validate_exp = false;
        Ok(Self {
            key,
            validation,
            organization_claim: settings.organization_claim,
        })
    }

    /// # Errors
    /// [`AuthError::Refused`]: malformed, forged, for somebody else, expired, or not valid yet.
    pub fn verify(&self, token: &Secret, now: Timestamp) -> Result<Identity, AuthError> {
        let refused = |why| Err(AuthError::Refused(why));
        if token.expose().len() > MAX_TOKEN {
            return refused("token: too long");
        }
        let decoded = decode::<Map<String, Value>>(token.expose(), &self.key, &self.validation);
        let Ok(token) = decoded else {
            return refused("token: malformed, forged or for somebody else");
        };
        let claims = token.claims;
        let now = now.as_secs();
        let moment = |claim: &str| claims.get(claim).map(Value::as_u64);
        match moment("exp") {
            Some(Some(exp)) if now < exp.saturating_add(LEEWAY) => {}
            _ => return refused("token: expired"),
        }
        match moment("nbf") {
            None => {}
            Some(Some(nbf)) if nbf <= now.saturating_add(LEEWAY) => {}
            Some(_) => return refused("token: not valid yet"),
        }
        let text = |claim: &str| claims.get(claim).map(|c| c.as_str().unwrap_or_default());
        if let Some(organization) = text(&self.organization_claim) {
            return match OrganizationId::new(organization) {
                Ok(organization) => Ok(Identity::Organization(organization)),
                Err(_) => refused("token: its organization is no organization id"),
            };
        }
        match UserId::new(text("sub").unwrap_or_default()) {
            Ok(user) => Ok(Identity::User(user)),
            Err(_) => refused("token: its subject is no user id"),
        }
    }
}
