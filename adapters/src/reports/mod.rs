//! What locks report.

mod memory;

pub use memory::InMemoryReports;
