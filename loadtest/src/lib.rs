//! Load tests of a running service over HTTP: clients, measurements, checks and reports. Benches and end-to-end tests use the HTTP
//! client and the child processes. This crate shares no code with the server.

mod arrivals;
pub mod child_process;
mod cli;
pub mod closed_loop;
pub mod error;
pub mod fleet;
mod format;
pub mod hyper_caller;
pub mod local_service;
pub mod lost_writes;
pub mod open_loop;
mod overload;
pub mod persona_session;
pub mod personas;
pub mod population;
pub mod process_usage;
pub mod recorder;
pub mod report;
mod run;
pub mod server;
pub mod statistics;
pub mod summary;
pub mod uniform_load;
pub mod verdict;

pub use cli::main;
