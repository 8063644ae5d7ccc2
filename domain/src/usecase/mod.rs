//! The use cases. They load data, call [`policy`](crate::policy) for decisions, and run the write protocol. They spawn no tasks.

mod attempt;
mod attempt_runner;
mod audit;
mod clock_steps;
mod deadline;
mod feed;
mod key_writes;
mod lists;
mod lock_queue;
mod maintenance;
mod page_scan;
mod purge;
mod read;
mod reconcile_shadow;
mod recover_undecided;
mod settings;
mod settle_report;
mod shadow_calls;
mod terminate;
mod webhook_deliveries;
mod webhooks;
mod withdraw;
mod write_key;

pub use attempt::{Attempt, Observation, Step};
pub use audit::{AuditError, AuditReport};
pub use feed::{FeedEvent, FeedFilter, FeedPage};
pub use key_writes::{KeyWrites, Ports};
pub use lists::{ListPage, LockFilter, WriteFilter};
pub use maintenance::MaintenanceOutcome;
pub use read::ReadError;
pub use settings::{InvalidSettings, Settings};
pub use settle_report::{SettleError, Settlement};
pub use webhooks::{NewWebhook, ReplayFrom, TestDelivery, WebhookChange, WebhookError, Webhooks};
pub use withdraw::WithdrawError;
pub use write_key::{RequestOptions, WriteError, WriteReceipt};
