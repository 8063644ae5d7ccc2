//! What a verified token says.

use keywright_domain::model::{Identity, OrganizationId, UserId};
use serde_json::{Map, Value};

use super::token_error::TokenError;
use super::{JwtSettings, Verified, strict_json};

/// How far the issuer's clock may be ahead or behind, in seconds.
const LEEWAY: u64 = 30;

/// Reads claims whose signature is good. `now` is in epoch seconds.
pub(super) fn read(
    claims: &[u8],
    settings: &JwtSettings,
    now: u64,
) -> Result<Verified, TokenError> {
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
    Ok(Verified {
        identity,
        subject,
        expires_at,
    })
}

/// A moment in epoch seconds, which may have a fraction (RFC 7519, section 2, NumericDate). The outer `None`:
/// there is no such claim; the inner one: it is no moment.
fn seconds(claims: &Map<String, Value>, name: &str) -> Option<Option<u64>> {
    let claim = claims.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number; what is too large becomes the largest"
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
