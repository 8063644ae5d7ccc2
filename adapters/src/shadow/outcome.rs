//! What a shadow's answer means, by its code and never by its text.

use keywright_domain::model::FailureReason;
use keywright_domain::ports::ShadowError;

/// Sorts an answer that is no success. `code` is an HTTP status, which rejections over MQTT carry as well.
pub(super) fn of_code(code: u16, detail: String) -> ShadowError {
    let reason = match code {
        409 => return ShadowError::Conflict,
        401 | 403 => FailureReason::NotAuthorized,
        413 => FailureReason::ShadowTooLarge,
        429 => FailureReason::Throttled,
        400 | 404 | 405 | 415 => FailureReason::Unavailable,
        _ => return ShadowError::Unknown(detail),
    };
    ShadowError::Refused { reason, detail }
}

/// A request that never left.
#[cfg(any(feature = "aws", feature = "mqtt"))]
pub(super) fn not_sent(reason: FailureReason, detail: String) -> ShadowError {
    ShadowError::NotApplied { reason, detail }
}

/// A request that was held back, because the service has refused others.
#[cfg(any(feature = "aws", feature = "mqtt"))]
pub(super) fn throttled() -> ShadowError {
    not_sent(
        FailureReason::Throttled,
        "the service has refused others before".into(),
    )
}

/// An answer that is none of a shadow's.
pub(super) fn unreadable() -> ShadowError {
    ShadowError::Unknown("an answer without a version".into())
}
