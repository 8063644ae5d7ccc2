//! The ports: traits through which the domain reaches stores, shadows, clocks and reports. Each trait states its contract, and
//! `keywright-testkit` has a test case for each promise.

mod auth;
mod lock_history;
mod lock_repo;
mod reports;
mod shadow;
mod time;
mod webhooks;

pub use auth::{AuthError, AuthPort, Credentials, Secret};
pub use lock_history::{ImportError, LockHistory};
pub use lock_repo::{LockRepo, RepoError};
pub use reports::{Acknowledge, DeviceReports, ReportStreamItem, ReportsClosed};
pub use shadow::{ShadowError, ShadowPort};
pub use time::{Clock, IdGenerator, Timer};
pub use webhooks::{WebhookSender, WebhookStore};
