//! Signals that the program follows.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// How the program is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A supervisor asks (SIGTERM): balancers are to notice first.
    AfterDrainDelay,
    /// A person asks (SIGINT), or the program cannot go on.
    Now,
}

/// SIGTERM, SIGINT and SIGHUP.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the program is asked to stop. SIGHUP is no such request: files of keys are read again by themselves
    /// when they change, and everything else needs a restart.
    pub(crate) async fn next(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::AfterDrainDelay,
                _ = self.interrupt.recv() => return Stop::Now,
                _ = self.hang_up.recv() => {
                    info!("SIGHUP is ignored: changed key files are read by themselves, other settings at the next start");
                }
            }
        }
    }
}
