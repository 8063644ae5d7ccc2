//! Writing keys to smart locks, and proving what became of each: rules, events, ports and use cases.
//!
//! Pure: no runtime, no I/O, no serialization, no wall clock. Every decision is a synchronous function
//! in [`rules`]; [`KeyWrites`] runs the write protocol over the [`ports`] that you give it.
//!
//! Embedding it means to choose an adapter for each port, to run [`KeyWrites::write_key`] for each
//! request, [`KeyWrites::settle`] for each report of a lock, [`KeyWrites::recover_next`] and
//! [`KeyWrites::maintain`] every second, and [`KeyWrites::reconcile_all`] at start-up, whenever reports may
//! have been missed, and when [`KeyWrites::clock_was_set_back`]:
//!
//! ```
//! use std::sync::Arc;
//!
//! use keywright_adapters::lock_repo::InMemoryLockRepo;
//! use keywright_adapters::shadow::InMemoryShadow;
//! use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
//! use keywright_domain::model::{Identity, KeyIndex, KeySlot, KeyUuid, LockEvent, LockId, LockUuid, LockVersion, NewLock, Principal, RecordedEvent, ThingName, UserId};
//! use keywright_domain::ports::{Clock, DeviceReports, LockHistory, ReportStreamItem};
//! use keywright_domain::policy::WriteKey;
//! use keywright_domain::{KeyWrites, Ports, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let timer = Arc::new(TokioTimer::default());
//! let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
//! let shadow = Arc::new(InMemoryShadow::of_this_process());
//! # let service = shadow.service().clone();
//! let reports = shadow.reports();
//! let (locks, history, clock, ids) = (store.clone(), store, Arc::new(SystemClock), Arc::new(SystemIds));
//! let ports = Ports { locks, history, shadow, clock, timer, ids };
//!
//! let (lock, owner) = (LockId::new(123)?, UserId::new("alice")?);
//! let thing = Some(ThingName::new("front-door")?);
//! let created = NewLock { owner: Some(owner.clone()), thing, ..NewLock::default() };
//! let created = RecordedEvent {
//!     lock,
//!     uuid: LockUuid::new("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11")?,
//!     version: LockVersion(1),
//!     time: ports.clock.now(),
//!     write: None,
//!     event: LockEvent::LockCreated(Box::new(created)),
//! };
//! ports.history.import(vec![created]).await?;
//!
//! let writes = KeyWrites::new(ports, Settings::default())?;
//! let slot = KeySlot { key: KeyUuid::new("9b2e8f4a")?, index: Some(KeyIndex::new(2)?) };
//! let alice = Principal::of(Identity::User(owner));
//! let written = writes.write_key(&WriteKey { lock, slot }, &alice).await?;
//! assert_eq!(written.version, LockVersion(2));
//!
//! // Beside the requests, in tasks of your runtime: once at start-up, then every second.
//! writes.reconcile_all(None, 100).await?;
//! while writes.recover_next().await?.is_some() {}
//! writes.maintain(None, 100).await?;
//!
//! // And for as long as reports come: settle, then acknowledge.
//! # let result = format!(r#"{{"{}":{{"status":"SUCCEEDED"}}}}"#, written.write);
//! # let body = format!(r#"{{"state":{{"reported":{{"writeKeyResult":{result}}}}}}}"#);
//! # let name = keywright_shadow::ShadowName::Named("keys".into());
//! # service.update("front-door", &name, body.as_bytes()).await.expect("accepted");
//! if let ReportStreamItem::Report(report, acknowledge) = reports.next().await? {
//!     writes.settle(&report).await?;
//!     acknowledge();
//! }
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
    Attempt, AuditError, AuditReport, InvalidSettings, KeyWrites, MaintenanceOutcome,
    MaintenanceRound, Observation, Ports, ReadError, RequestOptions, Settings, SettleError,
    Settlement, Step, WithdrawError, WriteError, WriteReceipt,
};
