//! Validated values: a value that exists is valid. Constructors and parsers return [`InvalidValue`] otherwise.

mod ids;
mod invalid;
mod text;
mod time;

pub use ids::{
    Epoch, KeyIndex, LockId, LockVersion, Revision, Sequence, ShadowVersion, WebhookId, WriteId,
};
pub use invalid::{InvalidValue, MAX_JSON_INTEGER};
pub use text::{
    ClientToken, DeviceCode, IdempotencyKey, KeyUuid, LockUuid, OrganizationId, RequestId,
    SerialNumber, SubjectId, ThingName, UserId, WebhookDescription,
};
pub use time::{Tick, Timestamp};
