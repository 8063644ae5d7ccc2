//! The signals that stop the program.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// How the program stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// After SIGTERM of a supervisor: load balancers first notice that the service is not ready.
    AfterDrainDelay,
    /// After SIGINT (Ctrl-C), or when a part of the program has failed.
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

    /// Waits for a signal that stops the program. SIGHUP does not: changed key files are read again without it, and other changes
    /// of the settings need a restart.
    pub(crate) async fn next(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::AfterDrainDelay,
                _ = self.interrupt.recv() => return Stop::Now,
                _ = self.hang_up.recv() => {
                    info!("SIGHUP is ignored: changed key files are read again without it, other settings at the next start");
                }
            }
        }
    }
}
