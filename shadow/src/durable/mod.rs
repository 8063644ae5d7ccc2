//! Many small writes, few commits: what a durable store in SQLite is built on.

mod group_commit;

pub use group_commit::{CommitError, GroupCommit};
