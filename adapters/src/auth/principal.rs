//! The principal of a request with one or two credentials.

use keywright_domain::model::{Principal, Proof};
use keywright_domain::ports::AuthError;

/// The principal of a request, if each credential that was sent is valid.
pub(super) fn principal(
    token: Option<Result<Proof, AuthError>>,
    api_key: Option<Result<Proof, AuthError>>,
) -> Result<Principal, AuthError> {
    match (token, api_key) {
        (None, None) => Err(AuthError::Refused("no credentials were sent")),
        (Some(one), None) | (None, Some(one)) => Ok(Principal::of(one?)),
        (Some(token), Some(api_key)) => Ok(Principal::of_both(token?, api_key?)),
    }
}
