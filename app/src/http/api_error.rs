//! The errors of the API: one table from the cause to status, message, reason and headers.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use keywright_domain::model::{FailureReason, InvalidValue, LockId, Timestamp, WriteId};
use keywright_domain::policy::Rejection;
use keywright_domain::ports::{AuthError, RepoError};
use keywright_domain::{ReadError, WithdrawError, WriteError};
use serde::Serialize;
use tracing::{error, info};
use utoipa::ToSchema;

use super::response::{HttpResponse, json, to_json, write_location};

/// Why the response to a request is an error, and the message for the client. The messages of 401, 403, 404 and 502 are the
/// vendor's, verbatim.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The request is invalid. The message says what to change.
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    /// The request is not valid HTTP or its end is not known. The connection is closed.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    #[error("The request line and headers must have at most {0} bytes and 100 headers")]
    HeadTooLarge(usize),
    #[error("Authentication required. Please provide a valid API token")]
    Unauthorized,
    #[error("You don't have permission to access this resource")]
    Forbidden,
    #[error("The requested resource was not found")]
    NotFound,
    /// The path has only these methods.
    #[error("This path allows {0}")]
    MethodNotAllowed(&'static str),
    #[error("The body did not arrive in time; send it without pauses")]
    BodyTooSlow,
    #[error("The only transfer coding that is supported is chunked")]
    UnknownTransferCoding,
    #[error("The body must not be compressed; send it without Content-Encoding")]
    EncodedBody,
    #[error("The lock is not bound to a thing yet; provision it first")]
    NotProvisioned,
    /// The write to withdraw has ended in this state.
    #[error("The write has already ended: it is {0}")]
    AlreadyEnded(&'static str),
    #[error("The body must have at most {0} bytes")]
    BodyTooLarge(usize),
    #[error("The body must be JSON; send it with Content-Type: application/json")]
    NotJson,
    #[error("keyIndexNumber must be below {0}, the number of the lock's key slots")]
    IndexBeyondCapacity(u64),
    #[error("The lock has too many open writes; wait until it has settled some, or withdraw some")]
    TooManyOpenWrites,
    /// Too many requests of one organization or user are in progress.
    #[error(
        "Too many of your requests are in progress; nothing was done, try again when some have been answered"
    )]
    QuotaExceeded,
    /// Too many streams of events are open, of all or of one organization or user.
    #[error("Too many streams of events are open; close some, or read /events page by page")]
    TooManyStreams,
    /// An organization has as many webhooks as it may have.
    #[error("There are {0} webhooks already; remove one, or change one")]
    TooManyWebhooks(usize),
    /// The secret of a webhook was replaced a short time ago.
    #[error(
        "The secret was replaced recently, and the one before is valid until {0}; replace it again after that"
    )]
    RotatedRecently(Timestamp),
    /// Too many requests from one address had credentials that are not valid.
    #[error("Too many requests with invalid credentials; check them before you try again")]
    TooManyFailures,
    #[error(
        "An internal error occurred; the operator finds it in the log by the id in X-Request-Id"
    )]
    Internal,
    #[error("Failed to update device shadow")]
    NotUpdated(FailureReason),
    /// Too many requests are in progress, at the service or for the lock.
    #[error("Other requests are in progress; nothing was done, try again")]
    Busy,
    #[error(
        "An earlier request with this Idempotency-Key is in progress; try again when it has been answered"
    )]
    StillRunning,
    #[error("This Idempotency-Key was used for another command; use a new key for each command")]
    OtherCommand,
    #[error(
        "The outcome of an earlier write of the lock is not known yet; nothing was done, try again when it is"
    )]
    AfterUndecided(UndecidedWrite),
    /// The store or the verification of credentials failed. The message does not say that nothing was done: the
    /// store may have applied a change that it did not confirm.
    #[error(
        "The service cannot do this at the moment; try again, with the same Idempotency-Key if there was one"
    )]
    Unavailable,
    /// The service does not accept work, for this reason.
    #[error("{0}")]
    NotReady(&'static str),
    /// The outcome is not known at the deadline of the request.
    #[error("The device shadow did not answer in time; the outcome is not known yet")]
    Undecided(UndecidedWrite),
}

/// A write whose outcome is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct UndecidedWrite {
    pub(super) lock: LockId,
    pub(super) write: WriteId,
    /// When the recoverer takes the write over: after the lease of its intent.
    pub(super) lease: Duration,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    /// Always false.
    success: bool,
    /// The reason phrase of the status.
    error: &'a str,
    /// What is wrong and what to change.
    message: &'a str,
    /// The HTTP status.
    code: u16,
    /// The cause, for programs. Later versions may add causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// `Retry-After` of a request that can succeed when others have ended.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// `Retry-After` of a request that can succeed when the lock has settled a write.
const RETRY_AFTER_LOCK: Duration = Duration::from_secs(30);

impl ApiError {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotProvisioned
            | Self::AlreadyEnded(_)
            | Self::StillRunning
            | Self::TooManyWebhooks(_)
            | Self::RotatedRecently(_) => StatusCode::CONFLICT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::EncodedBody | Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OtherCommand | Self::IndexBeyondCapacity(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyOpenWrites
            | Self::QuotaExceeded
            | Self::TooManyStreams
            | Self::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::NotUpdated(_) => StatusCode::BAD_GATEWAY,
            Self::Busy | Self::AfterUndecided(_) | Self::Unavailable | Self::NotReady(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Undecided(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::NotProvisioned => Some("NotProvisioned"),
            Self::StillRunning => Some("StillRunning"),
            Self::OtherCommand => Some("IdempotencyKeyReused"),
            Self::TooManyOpenWrites => Some("TooManyOpenWrites"),
            Self::QuotaExceeded => Some("TooManyInProgress"),
            Self::TooManyFailures => Some("TooManyFailures"),
            Self::TooManyStreams => Some("TooManyStreams"),
            Self::TooManyWebhooks(_) => Some("TooManyWebhooks"),
            Self::RotatedRecently(_) => Some("RotatedRecently"),
            Self::NotUpdated(reason) => Some(reason.name()),
            _ => None,
        }
    }

    /// The headers of the response, besides those of every response.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let retry_after = |span: Duration| (RETRY_AFTER, HeaderValue::from(span.as_secs()));
        match self {
            Self::Unauthorized => vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            Self::MethodNotAllowed(allowed) => vec![(ALLOW, HeaderValue::from_static(allowed))],
            Self::TooManyOpenWrites => vec![retry_after(RETRY_AFTER_LOCK)],
            Self::QuotaExceeded
            | Self::TooManyStreams
            | Self::TooManyFailures
            | Self::StillRunning
            | Self::Busy
            | Self::Unavailable
            | Self::NotReady(_) => vec![retry_after(RETRY_SOON)],
            Self::Undecided(undecided) | Self::AfterUndecided(undecided) => vec![
                retry_after(undecided.lease),
                (LOCATION, write_location(undecided.lock, undecided.write)),
            ],
            Self::EncodedBody => vec![(ACCEPT_ENCODING, HeaderValue::from_static("identity"))],
            // The rest of the body is not read.
            Self::BodyTooSlow
            | Self::BodyTooLarge(_)
            | Self::Malformed(_)
            | Self::UnknownTransferCoding => vec![(CONNECTION, HeaderValue::from_static("close"))],
            _ => Vec::new(),
        }
    }

    pub(super) fn status_and_body(&self) -> (StatusCode, Vec<u8>) {
        let status = self.status();
        let body = Body {
            success: false,
            error: match self {
                Self::NotUpdated(_) => "Error",
                _ => status.canonical_reason().unwrap_or("Error"),
            },
            message: &self.to_string(),
            code: status.as_u16(),
            reason: self.reason(),
        };
        (status, to_json(&body))
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let (status, body) = self.status_and_body();
        let mut response = json(status, body);
        response.headers_mut().extend(self.headers());
        response
    }
}

impl From<InvalidValue> for ApiError {
    fn from(invalid: InvalidValue) -> Self {
        Self::BadRequest(invalid.to_string().into())
    }
}

/// Every refusal has the same message for the client. The log has the cause.
impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused(why) => {
                info!(why, "credentials refused");
                Self::Unauthorized
            }
            AuthError::Unavailable(_) => {
                error!(%error, "credentials cannot be verified");
                Self::Unavailable
            }
        }
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::LockNotFound => Self::NotFound,
            Rejection::Forbidden => Self::Forbidden,
            Rejection::NotProvisioned => Self::NotProvisioned,
            Rejection::IndexBeyondCapacity { capacity } => Self::IndexBeyondCapacity(capacity),
            Rejection::TooManyOpenWrites => Self::TooManyOpenWrites,
        }
    }
}

impl From<RepoError> for ApiError {
    fn from(error: RepoError) -> Self {
        error!(%error, "the store failed");
        match error {
            RepoError::Corrupt { .. } => Self::Internal,
            RepoError::Stale | RepoError::Unavailable(_) | RepoError::Unknown(_) => {
                Self::Unavailable
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => rejection.into(),
            ReadError::WriteNotFound => Self::NotFound,
            ReadError::Store(error) => error.into(),
        }
    }
}

impl ApiError {
    /// `lease`: when the recoverer takes over a write whose outcome is not known.
    pub(super) fn of_write(error: WriteError, lock: LockId, lease: Duration) -> Self {
        let undecided = |write| UndecidedWrite { lock, write, lease };
        match error {
            WriteError::Rejected(rejection) => rejection.into(),
            WriteError::Busy { undecided: None } => Self::Busy,
            WriteError::Busy {
                undecided: Some(write),
            } => Self::AfterUndecided(undecided(write)),
            WriteError::NotUpdated(reason) => Self::NotUpdated(reason),
            WriteError::Undecided(write) => Self::Undecided(undecided(write)),
            WriteError::StillRunning => Self::StillRunning,
            WriteError::OtherCommand => Self::OtherCommand,
            WriteError::Store(error) => error.into(),
        }
    }

    pub(super) fn of_withdrawal(
        error: WithdrawError,
        lock: LockId,
        write: WriteId,
        lease: Duration,
    ) -> Self {
        let undecided = UndecidedWrite { lock, write, lease };
        match error {
            WithdrawError::Rejected(rejection) => rejection.into(),
            WithdrawError::NotFound => Self::NotFound,
            WithdrawError::Busy => Self::Busy,
            WithdrawError::Prepared => Self::AfterUndecided(undecided),
            WithdrawError::AlreadyEnded(write) => Self::AlreadyEnded(write.state.name()),
            WithdrawError::NotUpdated(reason) => Self::NotUpdated(reason),
            WithdrawError::Undecided => Self::Undecided(undecided),
            WithdrawError::Store(error) => error.into(),
        }
    }
}
