//! The PostgreSQL database that replicas share: its connections, its schema, and the meaning of its errors. The stores of locks
//! and of API keys use it.

mod error;
mod pool;
mod schema;
mod session_check;
mod settings;

pub use crate::tls::InvalidCaFile;
pub use error::PostgresError;
pub(crate) use error::{QueryError, failed};
pub use pool::PostgresPool;
pub use settings::{InvalidPostgresUrl, PostgresSettings};
