//! The decisions: synchronous functions without side effects. The use cases save what they return unchanged.

mod access;
mod admission;
mod audit;
mod idempotency;
mod limits;
mod reach;
mod report_decision;
mod save_draft;
mod transitions;
mod webhook;

pub use access::{AccessPolicy, OwnerAccess};
pub use admission::{
    Permitted, Rejection, WriteDecision, WriteKey, authorize, authorize_withdrawal,
    authorize_write, decide_write,
};
pub use audit::{Finding, audit};
pub use idempotency::{IdempotencyDecision, decide_idempotency, record_without_event};
pub use limits::Limits;
pub use reach::{Reach, reach};
pub use report_decision::{IgnoreReason, ReportDecision, ReportedResult, decide_report};
pub use transitions::{
    NewWrite, Termination, abort, clear_results, commit, is_scheduled_too_late, prepare,
    schedule_check, schedule_next_check, terminate,
};
pub use webhook::{
    AddressRules, DeliveryQueue, FinishedAttempt, ForbiddenAddress, NextDelivery, QueueChanges,
    UnusableUrl, Verdict, WebhookLimits, judge, may_manage, may_read, owner_of,
};
