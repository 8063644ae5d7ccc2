//! Many small writes, few commits: what a durable store in SQLite is built on.

mod file;
mod group_commit;

pub use file::{Format, OpenError};
pub use group_commit::{CommitError, GroupCommit, drain_batch};
