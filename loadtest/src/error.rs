//! The errors of the load test.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use goose::GooseError;
use thiserror::Error;

use keywright_client::ClientError;

/// Why a process was not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The program cannot be run.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The process ended, or did not print that it is ready within a minute.
    #[error("{program} did not start: {banner}")]
    NotReady {
        /// The program.
        program: String,
        /// What it has printed on standard output.
        banner: String,
    },
}

/// Why nothing can be measured. The texts are for the user of the program.
#[derive(Debug, Error)]
pub enum Error {
    /// A file cannot be read, written or parsed.
    #[error("{}: {reason}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Options are invalid or contradict each other.
    #[error("{0}")]
    Options(String),
    /// The service, or a command of `keywright`, did not do what the load test needs.
    #[error("{0}")]
    Service(String),
    /// A process cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A request has no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system refuses a call.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A value is not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Goose cannot run its users.
    #[error(transparent)]
    Goose(Box<GooseError>),
}

impl Error {
    /// Turns the reason of an error into one that names this file.
    pub(crate) fn file<E: Display>(path: &Path) -> impl Fn(E) -> Self {
        move |reason| Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
