//! Runs what a service that embeds [`KeyWrites`](keywright_domain::KeyWrites) does beside its requests: it settles the reports of locks,
//! recovers intents whose lease has ended, maintains open writes, reads shadows again where reports may have been missed, and deletes
//! old records. It also passes all recorded events to an [`EventPublisher`] of the service.
//!
//! The tasks use the ports of `KeyWrites` and a function of the service that starts a task. They need no particular runtime.
//!
//! ```
//! # use std::sync::Arc;
//! # use keywright_domain::KeyWrites;
//! # use keywright_domain::ports::DeviceReports;
//! use keywright_runner::Runner;
//!
//! # async fn example(writes: Arc<KeyWrites>, reports: Arc<dyn DeviceReports>, shutdown: impl Future<Output = ()>) {
//! let runner = Runner::new(writes, |task| drop(tokio::spawn(task)))
//!     .observer(|event| eprintln!("{event}"))
//!     .start(vec![reports]);
//! tokio::select! {
//!     () = shutdown => {}
//!     task = runner.failure() => eprintln!("{task} has ended; the service must be restarted"),
//! }
//! runner.stop().await;
//! # }
//! ```
#![warn(missing_docs)]

mod context;
mod event;
mod maintain;
mod pacing;
mod publish;
mod purge;
mod recover;
mod runner;
mod settle;

pub use context::Task;
pub use event::RunnerEvent;
pub use pacing::Pacing;
pub use publish::{EventHint, EventPublisher, PublishError};
pub use runner::{Runner, RunningTasks};
