//! What the domain asks of the world. Each port states its contract; `keywright-testkit` checks it.

mod auth;
mod lock_history;
mod lock_repo;
mod reports;
mod shadow;
mod time;

pub use auth::{AuthError, AuthPort, Credentials, Secret};
pub use lock_history::{Due, ImportError, LockHistory, Standing};
pub use lock_repo::{LockRepo, RepoError, Save};
pub use reports::{
    Acknowledge, DeviceOutcome, DeviceReport, DeviceReports, DeviceResult, ReportStreamItem,
    ReportedSlot, ReportsClosed,
};
pub use shadow::{ShadowChange, ShadowEntry, ShadowError, ShadowPort, ShadowSnapshot};
pub use time::{Clock, IdGenerator, Timer};
