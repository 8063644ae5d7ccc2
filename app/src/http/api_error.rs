//! Every error that a client can get: one table from what happened to what is answered.

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

use super::Answer;
use super::answer::{json, location, to_json};

/// Why a request is not answered with 200.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request itself is wrong; the text says what to change.
    BadRequest(Cow<'static, str>),
    /// It is not even clear where the request ends, so that the connection is closed.
    Unframed(Cow<'static, str>),
    /// Its line and headers are too large; how many bytes they may have.
    HeadTooLarge(usize),
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed(&'static str),
    BodyTooSlow,
    /// The body has a transfer coding beside `chunked`.
    UnknownTransferCoding,
    /// The body is compressed.
    EncodedBody,
    NotProvisioned,
    /// The write to take back is over, and how.
    AlreadyEnded(&'static str),
    BodyTooLarge(usize),
    NotJson,
    IndexBeyondCapacity(u64),
    TooManyOpenWrites,
    /// All that one organization or user may have in progress is.
    ShareTaken,
    /// Too many credentials from one source were refused.
    TooManyFailures,
    Internal,
    NotUpdated(FailureReason),
    Busy,
    /// An earlier request of the same name is not over, or wanted something else.
    StillRunning,
    OtherCommand,
    /// Another write of the lock has to be decided first.
    AfterUndecided(Undecided),
    Unavailable,
    /// No work is taken, and why.
    NotReady(&'static str),
    Undecided(Undecided),
}

/// A write whose outcome is not known yet, and after how long it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecided {
    pub(super) lock: LockId,
    pub(super) write: WriteId,
    pub(super) within: Duration,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    /// Always false.
    success: bool,
    /// The name of the status.
    error: &'a str,
    /// What is wrong, and what to change.
    message: &'a str,
    /// The HTTP status.
    code: u16,
    /// The cause, for programs. Causes are added over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// When to ask again.
const SOON: Duration = Duration::from_secs(1);
const AFTER_THE_LOCK: Duration = Duration::from_secs(30);

impl ApiError {
    /// The table. The texts of 401, 403, 404 and 502 are the vendor's to the letter.
    fn row(&self) -> (StatusCode, Cow<'static, str>) {
        use StatusCode as S;
        let fixed = |status, text| (status, Cow::Borrowed(text));
        match self {
            Self::BadRequest(text) | Self::Unframed(text) => (S::BAD_REQUEST, text.clone()),
            Self::HeadTooLarge(most) => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!(
                    "The request line and the headers may have {most} bytes and 100 headers at most"
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
                format!("This path is asked with {allowed}").into(),
            ),
            Self::BodyTooSlow => fixed(
                S::REQUEST_TIMEOUT,
                "The body did not arrive in time; send it at once",
            ),
            Self::NotProvisioned => fixed(
                S::CONFLICT,
                "The lock is not bound to a thing yet; provision it first",
            ),
            Self::AlreadyEnded(state) => (
                S::CONFLICT,
                format!("The write is over: it is {state}").into(),
            ),
            Self::StillRunning => fixed(
                S::CONFLICT,
                "An earlier request with this Idempotency-Key is in progress; ask again when it is answered",
            ),
            Self::OtherCommand => fixed(
                S::UNPROCESSABLE_ENTITY,
                "This Idempotency-Key was used for another command; choose a new one for each",
            ),
            Self::BodyTooLarge(most) => (
                S::PAYLOAD_TOO_LARGE,
                format!("The body may have {most} bytes at most").into(),
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
                "The lock has too many open writes; wait until it has settled some, or take some back",
            ),
            Self::ShareTaken => fixed(
                S::TOO_MANY_REQUESTS,
                "Too many of your requests are in progress; nothing was done, try again when some are answered",
            ),
            Self::TooManyFailures => fixed(
                S::TOO_MANY_REQUESTS,
                "Too many requests with credentials that are not valid; check them before you try again",
            ),
            Self::Internal => fixed(
                S::INTERNAL_SERVER_ERROR,
                "Something went wrong here; the request id in X-Request-Id helps to find it",
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
                "The service cannot do this at the moment; nothing was done, try again",
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
            Self::ShareTaken => Some("TooManyInProgress"),
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
            Self::TooManyOpenWrites => (RETRY_AFTER, seconds(AFTER_THE_LOCK)),
            Self::ShareTaken | Self::TooManyFailures => (RETRY_AFTER, seconds(SOON)),
            Self::StillRunning | Self::Busy | Self::Unavailable | Self::NotReady(_) => {
                (RETRY_AFTER, seconds(SOON))
            }
            Self::Undecided(write) | Self::AfterUndecided(write) => {
                (RETRY_AFTER, seconds(write.within))
            }
            Self::EncodedBody => (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            // What is left of the body is not read.
            Self::BodyTooSlow
            | Self::BodyTooLarge(_)
            | Self::Unframed(_)
            | Self::UnknownTransferCoding => (CONNECTION, HeaderValue::from_static("close")),
            _ => return None,
        })
    }

    /// The headers that come with it, besides those of every answer.
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
        let (status, message) = self.row();
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

    pub(super) fn into_answer(self) -> Answer {
        let (status, body) = self.status_and_body();
        let mut answer = json(status, body);
        answer.headers_mut().extend(self.header());
        if let Self::Undecided(undecided) | Self::AfterUndecided(undecided) = self {
            let location = location(undecided.lock, undecided.write);
            answer.headers_mut().insert(LOCATION, location);
        }
        answer
    }
}

impl From<InvalidValue> for ApiError {
    fn from(invalid: InvalidValue) -> Self {
        Self::BadRequest(invalid.to_string().into())
    }
}

/// The client learns one text whatever the cause; the log has the cause.
impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused(why) => {
                info!(why, "credentials refused");
                Self::Unauthorized
            }
            AuthError::Unavailable(_) => {
                error!(%error, "nobody is let in");
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
    /// `lease`: after that long, somebody finds out what is not known yet.
    pub(super) fn of_write(error: WriteError, lock: LockId, lease: Duration) -> Self {
        let undecided = |write| Undecided {
            lock,
            write,
            within: lease,
        };
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
        let undecided = Undecided {
            lock,
            write,
            within: lease,
        };
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
