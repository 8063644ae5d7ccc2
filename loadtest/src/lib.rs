//! What load tests and benches of whole servers are made of: who asks, how it is measured, and what is said of it. It shares
//! nothing with the server and talks HTTP like any client.

mod arrivals;
pub mod check;
mod cli;
pub mod figures;
pub mod fleet;
pub mod goose_client;
pub mod http;
pub mod limits;
pub mod load_writes;
pub mod open_loop;
mod overload;
pub mod own_client;
pub mod personas;
pub mod population;
pub mod process_usage;
pub mod recorder;
pub mod report;
mod run;
pub mod server;
pub mod session;
pub mod spawned;
pub mod summary;

pub use cli::main;
