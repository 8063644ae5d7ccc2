//! The outcome of a request to a shadow service, by the status of its answer. The text of an answer is not parsed.

use keywright_domain::model::FailureReason;
use keywright_domain::ports::ShadowError;

/// The error of an answer that rejects a request. `code` is an HTTP status, which rejections over MQTT also have. A read that is answered
/// by a 404 found no shadow, which is no error.
pub fn of_code(code: u16, detail: String) -> ShadowError {
    let reason = match code {
        409 => return ShadowError::Conflict,
        401 | 403 => FailureReason::NotAuthorized,
        413 => FailureReason::ShadowTooLarge,
        429 => FailureReason::Throttled,
        // The service answered, but no reason fits, and clients can only try again. The log has the detail.
        400 | 404 | 405 | 415 => FailureReason::Unavailable,
        _ => return ShadowError::Unknown(detail),
    };
    ShadowError::Refused { reason, detail }
}

/// The error of a request that was not sent.
#[cfg(any(feature = "aws", feature = "mqtt"))]
pub(super) fn not_sent(reason: FailureReason, detail: String) -> ShadowError {
    ShadowError::NotApplied { reason, detail }
}

/// The error of a request that is not sent because the service has throttled earlier ones.
#[cfg(any(feature = "aws", feature = "mqtt"))]
pub(super) fn throttled() -> ShadowError {
    not_sent(
        FailureReason::Throttled,
        "the service has throttled earlier requests".into(),
    )
}

/// The error of an answer that is not a shadow document with a version.
pub fn unreadable() -> ShadowError {
    ShadowError::Unknown("the answer is not a shadow document with a version".into())
}
