//! Writes keys to smart locks through their device shadows, and follows each write until it has ended.
//!
//! The crate has the [`model`], the decisions ([`policy`]), the use cases ([`KeyWrites`]) and the [`ports`]. It has no runtime, no
//! I/O, no serialization and no wall clock: the embedding service chooses an adapter for each port and calls the use cases.
//! docs/protocol.md specifies the write protocol and its invariants; docs/embedding.md is the guide for embedding services.
//!
//! ```
//! # use std::sync::Arc;
//! # use keywright_adapters::lock_repo::InMemoryLockRepo;
//! # use keywright_adapters::shadow::InMemoryShadow;
//! # use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
//! # use keywright_domain::model::*;
//! # use keywright_domain::policy::WriteKey;
//! # use keywright_domain::ports::{DeviceReports, LockHistory, ReportStreamItem};
//! # use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings};
//! # /// Imports a lock of the user alice.
//! # async fn import_lock(history: &dyn LockHistory, lock: LockId) -> Result<(), Box<dyn std::error::Error>> {
//! #     let (owner, thing) = (UserId::new("alice").ok(), ThingName::new("front-door").ok());
//! #     let event = LockEvent::LockCreated(Box::new(NewLock { owner, thing, ..NewLock::default() }));
//! #     let (uuid, time) = (LockUuid::new("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11")?, Timestamp::from_millis(0));
//! #     let created = RecordedEvent { lock, uuid, version: LockVersion(1), time, write: None, cause: None, event };
//! #     Ok(history.import(vec![created]).await?)
//! # }
//! # /// Reports success, as the lock does.
//! # async fn report_success(shadow: &InMemoryShadow, id: WriteId) {
//! #     let result = format!(r#"{{"{id}":{{"status":"SUCCEEDED"}}}}"#);
//! #     let body = format!(r#"{{"state":{{"reported":{{"writeKeyResult":{result}}}}}}}"#);
//! #     let name = keywright_shadow::ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into());
//! #     shadow.service().update("front-door", &name, body.as_bytes()).await.expect("accepted");
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (timer, shadow) = (Arc::new(TokioTimer::default()), Arc::new(InMemoryShadow::of_this_process()));
//! let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
//! let (locks, history, clock, ids) = (store.clone(), store, Arc::new(SystemClock), Arc::new(SystemIds));
//! let ports = Ports { locks, history, shadow: shadow.clone(), clock, timer, ids };
//! # import_lock(&*ports.history, LockId::new(123)?).await?;
//! # let reports = shadow.reports();
//! let writes = KeyWrites::new(ports, Settings::default())?;
//!
//! // For each request:
//! let slot = KeySlot { key: KeyUuid::new("9b2e8f4a")?, index: Some(KeyIndex::new(2)?) };
//! let command = WriteKey { lock: LockId::new(123)?, slot };
//! let alice = Principal::of(Identity::User(UserId::new("alice")?));
//! let receipt = writes.write_key(&command, &alice, RequestOptions::default()).await?;
//! # assert_eq!(receipt.version, LockVersion(2));
//! # report_success(&shadow, receipt.write).await;
//!
//! // For each report of a lock: settle it, then acknowledge it.
//! if let ReportStreamItem::Report(report, acknowledge) = reports.next().await? {
//!     writes.settle(&report).await?;
//!     acknowledge();
//! }
//!
//! // Every second, in a service without the package keywright-runner:
//! while writes.recover_next().await?.is_some() {}
//! for write in writes.due_writes(None, 100).await? {
//!     writes.maintain_write(&write).await;
//! }
//! # let read = writes.read_write(command.lock, receipt.write, &alice).await?;
//! # assert_eq!(read.state.name(), "SUCCEEDED");
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod invariants;
pub mod model;
pub mod policy;
pub mod ports;
mod usecase;

pub use usecase::{
    Attempt, AuditError, AuditReport, FeedEvent, FeedFilter, FeedPage, InvalidSettings, KeyWrites,
    ListPage, LockFilter, MaintenanceOutcome, NewWebhook, Observation, Ports, ReadError,
    ReplayFrom, RequestOptions, Settings, SettleError, Settlement, Step, TestDelivery,
    WebhookChange, WebhookError, Webhooks, WithdrawError, WriteError, WriteFilter, WriteReceipt,
};
