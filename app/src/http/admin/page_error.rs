//! Why an operator gets no page.

use hyper::StatusCode;

use crate::http::api_error::ApiError;

/// Why an operator gets no page.
pub(super) enum PageError {
    /// The browser is sent to the form to sign in.
    SignedOut,
    NotFound,
    /// The form does not come from a page of this session.
    ForeignForm,
    /// The operator may not do this.
    Forbidden,
    MethodNotAllowed,
    /// What was asked for is not possible, for this reason.
    Refused(StatusCode, String),
    Api(ApiError),
}

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        match error.into() {
            ApiError::NotFound => Self::NotFound,
            ApiError::Forbidden => Self::Forbidden,
            error => Self::Api(error),
        }
    }
}
