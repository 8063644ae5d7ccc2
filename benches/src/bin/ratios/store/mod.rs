//! The overhead of each store over its database: load, prepare and commit, compared with the same rows without the store.

pub(crate) mod memory;
pub(crate) mod postgres;
pub(crate) mod sqlite;
mod workload;
