//! What load tests and benches of whole servers are made of: a client, pressure, and what is measured. It shares nothing
//! with the server and talks HTTP like any client.

pub mod figures;
pub mod http;
pub mod pressure;
pub mod server;
