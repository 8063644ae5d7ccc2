//! Virtual locks that implement the device contract, and the demo world of the sandbox.
//!
//! A virtual lock reads the entries of `desired.writeKey` from its shadow and applies them in ascending `seq`. It saves each result
//! in its memory and then reports it with one update that also removes the entry. Its [`Behaviour`] says how fast and how
//! reliably it does that.
//!
//! ```no_run
//! use keywright_sandbox::{Behaviour, Shadows, VirtualLocks};
//! use keywright_shadow::{ShadowName, ShadowService};
//! use std::sync::Arc;
//!
//! # fn example(service: ShadowService) -> Result<(), Box<dyn std::error::Error>> {
//! let shadows = Shadows::InProcess(service, ShadowName::named("keys")?);
//! let clock = Arc::new(|| 1_700_000_000);
//! let mut locks = VirtualLocks::open("virtual-locks.sqlite".as_ref(), shadows, clock, None)?;
//! locks.add("front-door", "latency=200ms,offline=5s".parse::<Behaviour>()?);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod behaviour;
mod context;
mod demo;
mod device_contract;
mod lock_error;
mod lock_memory;
mod lock_memory_file;
mod locks;
mod shadow_link;
mod virtual_lock;

pub use behaviour::{Behaviour, Card, InvalidBehaviour, Offline, ScriptedChange};
pub use demo::{Demo, DemoLock};
pub use device_contract::{Entry, Outcome, parse_entries};
pub use lock_memory::{LockMemory, Task};
pub use lock_memory_file::{MemoryFileError, read_memories, read_memory};
pub use locks::VirtualLocks;
pub use shadow_link::Shadows;
