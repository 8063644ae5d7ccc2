//! Checks of the claims of a token.

use keywright_domain::model::{Identity, OrganizationId, UserId};
use serde_json::{Map, Value};

use super::strict_json;
use super::token_error::TokenError;

/// The tolerated difference between the issuer's clock and this one, in seconds.
const LEEWAY: u64 = 30;

/// The issuer and audience that are expected in tokens, and the name of the claim with the organization.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// The value of `iss`.
    pub issuer: String,
    /// The value of `aud`, or one of its values.
    pub audience: String,
    /// The name of the claim with the organization. The bearer of a token with this claim is a service of that organization; the bearer
    /// of any other token is a user.
    pub organization_claim: String,
}

/// The claims of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClaims {
    /// The identity of the bearer.
    pub identity: Identity,
    /// `sub`. It distinguishes the bearers of an organization's tokens.
    pub subject: UserId,
    /// The end of the token's validity in seconds since the epoch, with the leeway.
    pub expires_at: u64,
}

/// Reads claims whose signature is valid. `now` is in seconds since the epoch.
pub(super) fn read(
    claims: &[u8],
    settings: &JwtSettings,
    now: u64,
) -> Result<VerifiedClaims, TokenError> {
    let claims = strict_json::object(claims).ok_or(TokenError::Claims)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(settings.issuer.as_str()) {
        return Err(TokenError::WrongIssuer);
    }
    if !is_for(claims.get("aud"), &settings.audience) {
        return Err(TokenError::WrongAudience);
    }
    let expires_at = seconds(&claims, "exp")
        .flatten()
        .ok_or(TokenError::NoExpiry)?
        .saturating_add(LEEWAY);
    if now >= expires_at {
        return Err(TokenError::Expired);
    }
    for (name, refusal) in [
        ("nbf", TokenError::NotYetValid),
        ("iat", TokenError::IssuedInTheFuture),
    ] {
        match seconds(&claims, name) {
            None => {}
            Some(Some(at)) if at <= now.saturating_add(LEEWAY) => {}
            Some(_) => return Err(refusal),
        }
    }
    let subject = UserId::new(text("sub").unwrap_or_default()).map_err(|_| TokenError::Subject)?;
    let identity = match claims.get(&settings.organization_claim) {
        None => Identity::User(subject.clone()),
        Some(organization) => {
            let organization = organization.as_str().unwrap_or_default();
            let organization = OrganizationId::new(organization);
            Identity::Organization(organization.map_err(|_| TokenError::Organization)?)
        }
    };
    Ok(VerifiedClaims {
        identity,
        subject,
        expires_at,
    })
}

/// A time in seconds since the epoch, which may have a fraction (RFC 7519, section 2, NumericDate). The outer `None`: the claim
/// is missing; the inner one: it is not a time.
fn seconds(claims: &Map<String, Value>, name: &str) -> Option<Option<u64>> {
    let claim = claims.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is not negative, and the cast saturates"
    )]
    let whole = |float: f64| (float >= 0.0).then_some(float as u64);
    Some(claim.as_u64().or_else(|| claim.as_f64().and_then(whole)))
}

fn is_for(audience: Option<&Value>, ours: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == ours,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one == ours)
        }
        _ => false,
    }
}
