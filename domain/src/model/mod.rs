//! Data of the domain: locks, writes, events, and what the ports carry. Nothing here decides or performs I/O.

mod anomaly;
mod backlog;
mod event;
mod idempotency;
mod lock;
mod principal;
mod reason;
mod save;
mod shadow;
mod values;
mod webhook;
mod write;

pub use anomaly::{Anomalies, Anomaly};
pub use backlog::{Backlog, DueCursor};
pub use event::{
    Cause, EventId, HeldKey, KeySlot, LockEvent, LoggedEvent, NewLock, Position, RecordedEvent,
};
pub use idempotency::{IdempotencyRecord, IdempotencyScope};
pub use lock::{FoldError, Lock, LockKey, LockSnapshot, UnsettledWrite};
pub use principal::{CredentialName, Identity, Operator, OperatorRole, Principal, Proof};
pub use reason::{FailureReason, Retry};
pub use save::Save;
pub use shadow::{
    DeviceOutcome, DeviceReport, DeviceResult, ReportedSlot, ShadowChange, ShadowEntry,
    ShadowSnapshot,
};
pub use values::{
    ClientToken, DeviceCode, Epoch, IdempotencyKey, InvalidValue, KeyIndex, KeyUuid, LockId,
    LockUuid, LockVersion, MAX_JSON_INTEGER, OrganizationId, RequestId, Revision, Sequence,
    SerialNumber, ShadowVersion, SubjectId, ThingName, Tick, Timestamp, UserId, WebhookDescription,
    WebhookId, WriteId,
};
pub use webhook::{
    DeliveryOutcome, DeliveryRecord, DisabledReason, EndpointAnswer, EventSelection, FailureStreak,
    Network, NoAnswer, ProgressSave, ReplaySince, SigningSecret, SigningSecrets, WaitingLock,
    Webhook, WebhookEvent, WebhookHost, WebhookMessage, WebhookOwner, WebhookProgress,
    WebhookState, WebhookTest, WebhookUrl,
};
pub(crate) use write::entry_bytes;
pub use write::{Intent, Requested, Settled, WorkerId, Write, WriteState};
