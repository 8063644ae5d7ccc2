use keywright_shadow::Rejected;
#[cfg(feature = "mqtt")]
use keywright_shadow::mqtt::RequestError;

/// A shadow could not be read or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[cfg(feature = "mqtt")]
    #[error(transparent)]
    Request(#[from] RequestError),
}
