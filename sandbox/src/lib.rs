//! Virtual locks that keep the device contract, and the demo world that they live in.
//!
//! A virtual lock reads the entries of `desired.writeKey` from its shadow, applies them in ascending `seq`,
//! remembers what it did, and only then answers in one update that reports the result and takes the entry
//! away. How it behaves beyond that is scripted ([`Behaviour`]).
#![warn(missing_docs)]

mod behaviour;
mod demo;
mod device;
mod link;
mod locks;
mod memory_file;

pub use behaviour::{Behaviour, Card, Change, InvalidBehaviour, Offline};
pub use demo::{Demo, DemoLock};
pub use device::{Entry, LockMemory, Outcome, Task, entries};
pub use link::Shadows;
pub use locks::VirtualLocks;
pub use memory_file::{MemoryFileError, read_memories, read_memory};
