//! What every durable store of Keywright in SQLite needs: opening a file of a known format ([`FileFormat`]), and writing to it
//! with one commit for many small jobs ([`GroupCommit`]).
//!
//! ```
//! use keywright_sqlite::{FileFormat, GroupCommit};
//!
//! const FORMAT: FileFormat = FileFormat {
//!     description: "a list of doors",
//!     application_id: 0x6578_616d,
//!     migrations: &["CREATE TABLE doors (name TEXT PRIMARY KEY) STRICT"],
//!     exclusive: true,
//!     cache_kib: 256,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let conn = FORMAT.open(&folder.path().join("doors.db"))?;
//! let writer = GroupCommit::start("doors", conn)?;
//! let insert = "INSERT INTO doors VALUES (?1)";
//! // Durable once it is answered.
//! let inserted = writer.run(move |t| t.execute(insert, ["front"])).await??;
//! assert_eq!(inserted, 1);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod batch;
mod group_commit;
mod join_on_drop;
mod open_error;
mod store_file;

pub use batch::drain_batch;
pub use group_commit::{CommitError, GroupCommit, Sharing, WeakGroupCommit, WriterState};
pub use join_on_drop::JoinOnDrop;
pub use open_error::{FileError, OpenError};
pub use store_file::FileFormat;
