//! What the domain asks of the world. Each port states its contract; `keywright-testkit` checks it.

mod auth;
mod lock_history;
mod lock_repo;
mod reports;
mod shadow;
mod time;

pub use auth::{AuthError, AuthPort, Credentials, Secret};
pub use lock_history::{ImportError, LockHistory};
pub use lock_repo::{LockRepo, RepoError};
pub use reports::{Acknowledge, DeviceReports, ReportStreamItem, ReportsClosed};
pub use shadow::{ShadowError, ShadowPort};
pub use time::{Clock, IdGenerator, Timer};
