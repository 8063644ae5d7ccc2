//! Decisions about webhooks: who manages them, where they may lead, and when what is delivered.

mod address_rules;
mod delivery_queue;
mod retries;
mod webhook_access;

pub use address_rules::{AddressRules, ForbiddenAddress, UnusableUrl};
pub use delivery_queue::{DeliveryQueue, FinishedAttempt, NextDelivery, QueueChanges};
pub use retries::{Verdict, WebhookLimits, judge};
pub use webhook_access::{may_manage, may_read, owner_of};
