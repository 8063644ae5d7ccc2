//! `keywright shadow` and `keywright sandbox` as processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use keywright_loadtest::child_process::ChildProcess;

use crate::process_log::{MALLOC_ARENAS, ProcessLog};

/// A running shadow service, killed when it is dropped.
pub struct Shadows {
    process: ChildProcess,
    /// The address of the REST service, if there is one.
    pub rest: Option<SocketAddr>,
    log: ProcessLog,
}

impl Shadows {
    /// Starts `command` (`shadow` or `sandbox`), and waits until the shadows are served.
    ///
    /// # Panics
    /// The process does not start.
    pub fn start(binary: &str, command: &str, data: &Path, arguments: &[&str]) -> Self {
        let log = ProcessLog::new();
        let mut started = Command::new(binary);
        started.args([command, "--data"]).arg(data).args(arguments);
        started.envs([MALLOC_ARENAS]);
        let is_ready = |banner: &str| banner.contains("data ");
        let outcome = ChildProcess::start_until_ready(&mut started, Some(log.file()), is_ready);
        let (process, banner) = outcome.unwrap_or_else(|e| panic!("{e}{}", log.text()));
        let mut words = banner.split_whitespace();
        let rest = words.find_map(|word| word.strip_prefix("http://"));
        let rest = rest.map(|address| address.parse().expect("an address"));
        Self { process, rest, log }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// The resident memory of the process, in KiB.
    ///
    /// # Panics
    /// The process has ended.
    pub fn resident_kib(&self) -> u64 {
        self.process.usage().expect("it is running").resident_bytes / 1024
    }

    /// Kills the process (SIGKILL).
    pub fn kill(mut self) {
        self.process.kill();
    }
}
