//! The errors of the API: one table from the cause to status, message, reason and headers.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use keywright_domain::model::{FailureReason, InvalidValue, LockId, WriteId};
use keywright_domain::policy::Rejection;
use keywright_domain::ports::{AuthError, RepoError};
use keywright_domain::{ReadError, WithdrawError, WriteError};
use serde::Serialize;
use tracing::{error, info};
use utoipa::ToSchema;

use super::response::{HttpResponse, json, to_json, write_location};

/// Why the response to a request is an error.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request is invalid. The message says what to change.
    BadRequest(Cow<'static, str>),
    /// The request is not valid HTTP or its end is not known. The connection is closed.
    Malformed(Cow<'static, str>),
    /// The request line and headers exceed this number of bytes.
    HeadTooLarge(usize),
    Unauthorized,
    Forbidden,
    NotFound,
    /// The path has only these methods.
    MethodNotAllowed(&'static str),
    BodyTooSlow,
    /// The body has a transfer coding other than `chunked`.
    UnknownTransferCoding,
    /// The body is compressed.
    EncodedBody,
    /// The lock has no thing yet.
    NotProvisioned,
    /// The write to withdraw has already ended, in this state.
    AlreadyEnded(&'static str),
    /// The body exceeds this number of bytes.
    BodyTooLarge(usize),
    NotJson,
    /// The key index is not below this capacity of the lock.
    IndexBeyondCapacity(u64),
    TooManyOpenWrites,
    /// Too many requests of one organization or user are in progress.
    QuotaExceeded,
    /// Too many requests from one address had credentials that are not valid.
    TooManyFailures,
    Internal,
    /// The shadow update failed.
    NotUpdated(FailureReason),
    /// Too many requests are in progress, at the service or for the lock.
    Busy,
    /// An earlier request with the same idempotency key is in progress.
    StillRunning,
    /// An earlier request with the same idempotency key had another command.
    OtherCommand,
    /// The outcome of an earlier write of the lock has to be resolved first.
    AfterUndecided(UndecidedWrite),
    /// The store or the verification of credentials failed. The message does not say that nothing was done: the
    /// store may have applied a change that it did not confirm.
    Unavailable,
    /// The service does not accept work, for this reason.
    NotReady(&'static str),
    /// The outcome is not known at the deadline of the request.
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
    /// The messages of 401, 403, 404 and 502 are the vendor's, verbatim.
    fn status_and_message(&self) -> (StatusCode, Cow<'static, str>) {
        use StatusCode as S;
        let fixed = |status, text| (status, Cow::Borrowed(text));
        match self {
            Self::BadRequest(text) | Self::Malformed(text) => (S::BAD_REQUEST, text.clone()),
            Self::HeadTooLarge(max) => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!(
                    "The request line and headers must have at most {max} bytes and 100 headers"
                )
                .into(),
            ),
            Self::Unauthorized => fixed(
                S::UNAUTHORIZED,
                "Authentication required. Please provide a valid API token",
            ),
            Self::Forbidden => fixed(
                S::FORBIDDEN,
                "You don't have permission to access this resource",
            ),
            Self::NotFound => fixed(S::NOT_FOUND, "The requested resource was not found"),
            Self::MethodNotAllowed(allowed) => (
                S::METHOD_NOT_ALLOWED,
                format!("This path allows {allowed}").into(),
            ),
            Self::BodyTooSlow => fixed(
                S::REQUEST_TIMEOUT,
                "The body did not arrive in time; send it without pauses",
            ),
            Self::NotProvisioned => fixed(
                S::CONFLICT,
                "The lock is not bound to a thing yet; provision it first",
            ),
            Self::AlreadyEnded(state) => (
                S::CONFLICT,
                format!("The write has already ended: it is {state}").into(),
            ),
            Self::StillRunning => fixed(
                S::CONFLICT,
                "An earlier request with this Idempotency-Key is in progress; try again when it has been answered",
            ),
            Self::OtherCommand => fixed(
                S::UNPROCESSABLE_ENTITY,
                "This Idempotency-Key was used for another command; use a new key for each command",
            ),
            Self::BodyTooLarge(max) => (
                S::PAYLOAD_TOO_LARGE,
                format!("The body must have at most {max} bytes").into(),
            ),
            Self::UnknownTransferCoding => fixed(
                S::NOT_IMPLEMENTED,
                "The only transfer coding that is supported is chunked",
            ),
            Self::EncodedBody => fixed(
                S::UNSUPPORTED_MEDIA_TYPE,
                "The body must not be compressed; send it without Content-Encoding",
            ),
            Self::NotJson => fixed(
                S::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON; send it with Content-Type: application/json",
            ),
            Self::IndexBeyondCapacity(capacity) => (
                S::UNPROCESSABLE_ENTITY,
                format!(
                    "keyIndexNumber must be below {capacity}, the number of the lock's key slots"
                )
                .into(),
            ),
            Self::TooManyOpenWrites => fixed(
                S::TOO_MANY_REQUESTS,
                "The lock has too many open writes; wait until it has settled some, or withdraw some",
            ),
            Self::QuotaExceeded => fixed(
                S::TOO_MANY_REQUESTS,
                "Too many of your requests are in progress; nothing was done, try again when some have been answered",
            ),
            Self::TooManyFailures => fixed(
                S::TOO_MANY_REQUESTS,
                "Too many requests with invalid credentials; check them before you try again",
            ),
            Self::Internal => fixed(
                S::INTERNAL_SERVER_ERROR,
                "An internal error occurred; the operator finds it in the log by the id in X-Request-Id",
            ),
            Self::NotUpdated(_) => fixed(S::BAD_GATEWAY, "Failed to update device shadow"),
            Self::Busy => fixed(
                S::SERVICE_UNAVAILABLE,
                "Other requests are in progress; nothing was done, try again",
            ),
            Self::AfterUndecided(_) => fixed(
                S::SERVICE_UNAVAILABLE,
                "The outcome of an earlier write of the lock is not known yet; nothing was done, try again \
                 when it is",
            ),
            Self::Unavailable => fixed(
                S::SERVICE_UNAVAILABLE,
                "The service cannot do this at the moment; try again, with the same Idempotency-Key if there was one",
            ),
            Self::NotReady(why) => fixed(S::SERVICE_UNAVAILABLE, why),
            Self::Undecided(_) => fixed(
                S::GATEWAY_TIMEOUT,
                "The device shadow did not answer in time; the outcome is not known yet",
            ),
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
            Self::NotUpdated(reason) => Some(reason.name()),
            _ => None,
        }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let seconds = |span: Duration| HeaderValue::from(span.as_secs());
        Some(match self {
            Self::Unauthorized => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::MethodNotAllowed(allowed) => (ALLOW, HeaderValue::from_static(allowed)),
            Self::TooManyOpenWrites => (RETRY_AFTER, seconds(RETRY_AFTER_LOCK)),
            Self::QuotaExceeded | Self::TooManyFailures => (RETRY_AFTER, seconds(RETRY_SOON)),
            Self::StillRunning | Self::Busy | Self::Unavailable | Self::NotReady(_) => {
                (RETRY_AFTER, seconds(RETRY_SOON))
            }
            Self::Undecided(write) | Self::AfterUndecided(write) => {
                (RETRY_AFTER, seconds(write.lease))
            }
            Self::EncodedBody => (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            // The rest of the body is not read.
            Self::BodyTooSlow
            | Self::BodyTooLarge(_)
            | Self::Malformed(_)
            | Self::UnknownTransferCoding => (CONNECTION, HeaderValue::from_static("close")),
            _ => return None,
        })
    }

    /// The headers of the response, besides those of every response.
    pub(super) fn header_names(&self) -> Vec<String> {
        let undecided = matches!(self, Self::Undecided(_) | Self::AfterUndecided(_));
        let location = undecided.then_some(LOCATION);
        let names = self
            .header()
            .map(|(name, _)| name)
            .into_iter()
            .chain(location);
        names.map(|name| name.to_string()).collect()
    }

    pub(super) fn status_and_body(&self) -> (StatusCode, Vec<u8>) {
        let (status, message) = self.status_and_message();
        let body = Body {
            success: false,
            error: match self {
                Self::NotUpdated(_) => "Error",
                _ => status.canonical_reason().unwrap_or("Error"),
            },
            message: &message,
            code: status.as_u16(),
            reason: self.reason(),
        };
        (status, to_json(&body))
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let (status, body) = self.status_and_body();
        let mut response = json(status, body);
        response.headers_mut().extend(self.header());
        if let Self::Undecided(undecided) | Self::AfterUndecided(undecided) = self {
            let location = write_location(undecided.lock, undecided.write);
            response.headers_mut().insert(LOCATION, location);
        }
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
