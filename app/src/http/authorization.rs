//! Authentication and admission of requests about locks.

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use keywright_domain::model::{LockId, Principal};
use keywright_domain::ports::{AuthError, Credentials, Secret};

use super::api_error::ApiError;
use super::request_parameters;
use crate::app::App;
use crate::request_admission::{Permit, QuotaPermit};

/// Headers that only the vendor's own services may send.
const INTERNAL_HEADERS: [&str; 2] = ["X-Org-Id", "X-User-Id"];

/// A request about a lock with valid credentials. Whether the principal may access the lock is decided in the domain.
pub(super) struct AuthorizedRequest {
    pub(super) principal: Principal,
    pub(super) lock: LockId,
    /// Held while work is done.
    pub(super) permit: Permit,
    /// Held until the response, also while the request only waits for the lock.
    pub(super) quota: QuotaPermit,
}

/// Admits and authenticates a request. Load is checked first, because it costs the least.
///
/// # Errors
/// In this order: 503 when too many requests are in progress, 400 for internal headers, 401 for credentials that are not valid,
/// 400 for an invalid lock id, 429 when too many requests of the principal are in progress.
pub(super) async fn authorize(
    app: &App,
    headers: &HeaderMap,
    lock: &str,
) -> Result<AuthorizedRequest, ApiError> {
    let (principal, permit) = authenticate(app, headers).await?;
    let lock = request_parameters::lock_id(lock)?;
    let quota = quota(app, &principal)?;
    Ok(AuthorizedRequest {
        principal,
        lock,
        permit,
        quota,
    })
}

/// # Errors
/// In this order: 503 when too many requests are in progress, 400 for internal headers, 401 for credentials that are not valid.
pub(super) async fn authenticate(
    app: &App,
    headers: &HeaderMap,
) -> Result<(Principal, Permit), ApiError> {
    let Some(permit) = app.admission.permit().await else {
        return Err(shed(app));
    };
    Ok((principal(app, headers).await?, permit))
}

/// # Errors
/// 429 when too many requests of the principal are in progress.
pub(super) fn quota(app: &App, principal: &Principal) -> Result<QuotaPermit, ApiError> {
    app.admission.quota_permit(principal).ok_or_else(|| {
        app.metrics.shed("in_flight_each");
        ApiError::QuotaExceeded
    })
}

/// The 503 to a request that got no permit.
pub(super) fn shed(app: &App) -> ApiError {
    app.metrics.shed("in_flight");
    ApiError::Busy
}

async fn principal(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    if let Some(name) = { INTERNAL_HEADERS.iter() }.find(|name| headers.contains_key(**name)) {
        let text = format!("{name} is an internal header; leave it out");
        return Err(ApiError::BadRequest(text.into()));
    }
    let credentials = credentials(headers)?;
    Ok(app.auth.authenticate(&credentials).await?)
}

pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials, AuthError> {
    let bearer = bearer_token(headers)?;
    let api_key = single_value(headers, &HeaderName::from_static("x-api-key"))?;
    let api_key = api_key.map(Secret::new);
    Ok(Credentials { bearer, api_key })
}

/// The value of a header that may be sent once.
fn single_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str();
            text.map(Some)
                .map_err(|_| AuthError::Refused("a credential is not ASCII text"))
        }
        (Some(_), Some(_)) => Err(AuthError::Refused("a credential was sent twice")),
    }
}

/// The token of `Authorization: Bearer TOKEN`.
///
/// # Errors
/// The header has another scheme or was sent twice.
pub(super) fn bearer_token(headers: &HeaderMap) -> Result<Option<Secret>, AuthError> {
    let Some(value) = single_value(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Refused("Authorization is not Bearer"));
    }
    Ok(Some(Secret::new(token.trim())))
}
