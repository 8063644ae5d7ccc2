//! The programs under measurement and their CPU core.

use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_loadtest::server::Server;

/// The CPU core of servers.
pub(crate) const SERVER_CORE: Option<&str> = Some("0");

/// The folder of the programs, all of one build.
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
}

impl Programs {
    /// The programs in the folder of this one.
    pub(crate) fn of_this_build() -> Self {
        let this = std::env::current_exe().expect("a path");
        Self {
            folder: this.parent().map(Path::to_owned).expect("a folder"),
        }
    }

    pub(crate) fn keywright(&self) -> PathBuf {
        self.folder.join("keywright")
    }

    /// Starts a server on the core of servers.
    pub(crate) fn start(&self, data: &Path, arguments: &[&str]) -> Server {
        let started = Server::start(&self.keywright(), data, SERVER_CORE, arguments, &[]);
        started.expect("it starts")
    }

    /// The naive service on axum, which `scripts/bench` builds.
    pub(crate) fn axum_peer(&self) -> PathBuf {
        let folder = self.folder.with_file_name("peers");
        folder.join("release/keywright-peer-axum")
    }

    pub(crate) fn bare_hyper(&self) -> PathBuf {
        self.folder.join("bare-hyper")
    }
}

/// Moves a process to the core of servers.
pub(crate) fn move_to_server_core(process: Option<u32>) {
    let process = process.expect("it is running").to_string();
    let moved = Command::new("taskset")
        .args(["-acp", "0", &process])
        .output();
    assert!(moved.is_ok_and(|m| m.status.success()), "taskset is there");
}
