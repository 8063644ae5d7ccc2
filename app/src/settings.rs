//! What the service runs with, once it is known to make sense.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keywright_adapters::auth::Algorithm;
use keywright_adapters::layer::FaultPlan;
use keywright_sandbox::Behaviour;

/// Everything that can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// Where locks, shadows, memories and credentials are kept.
    pub(crate) data: PathBuf,
    pub(crate) log: LogFormat,
    pub(crate) log_level: tracing::Level,
    /// How long the protocol waits for what.
    pub(crate) protocol: keywright_domain::Settings,
    pub(crate) bounds: Bounds,
    /// Tokens of one's own issuer, besides the sandbox's or instead of them.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) sandbox: Sandbox,
}

/// Which tokens are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) keys: TokenKeys,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) organization_claim: String,
}

/// Where the keys of tokens are.
#[derive(Clone, Debug)]
pub(crate) enum TokenKeys {
    Jwks(PathBuf),
    One(PathBuf, Algorithm),
}

impl TokenKeys {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Jwks(path) | Self::One(path, _) => path,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a client may ask for at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of a request's body.
    pub(crate) body: usize,
    /// Bytes of a request's line and headers.
    pub(crate) headers: usize,
    /// Until the headers are there, also on a connection that sends nothing.
    pub(crate) header_time: Duration,
    /// Until the body is there.
    pub(crate) body_time: Duration,
    /// Until a client has taken in what it is sent.
    pub(crate) write_time: Duration,
    /// Connections at once; who comes then waits in the system's queue.
    pub(crate) connections: usize,
    /// Writes and withdrawals at once.
    pub(crate) in_flight: usize,
    /// How long a request waits for one of those places.
    pub(crate) start_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: 4 * 1024,
            headers: 16 * 1024,
            header_time: Duration::from_secs(5),
            body_time: Duration::from_secs(5),
            write_time: Duration::from_secs(10),
            connections: 4096,
            in_flight: 512,
            start_time: Duration::from_millis(100),
        }
    }
}

/// The demo world.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    /// Whether it is there at all.
    pub(crate) demo: bool,
    /// Whether locks are there to answer.
    pub(crate) virtual_locks: bool,
    /// Locks besides the first two.
    pub(crate) more_locks: u64,
    /// How all locks behave, unless one is named.
    pub(crate) behaviour: Behaviour,
    /// How single ones behave.
    pub(crate) behaviours: Vec<(u64, Behaviour)>,
    /// What goes wrong between the service and the shadows.
    pub(crate) faults: FaultPlan,
}

impl Sandbox {
    pub(crate) fn behaviour_of(&self, lock: u64) -> &Behaviour {
        let own = self.behaviours.iter().rfind(|(id, _)| *id == lock);
        own.map_or(&self.behaviour, |(_, behaviour)| behaviour)
    }
}
