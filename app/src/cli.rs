//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keywright_adapters::layer::FaultPlan;
use keywright_domain::rules::Limits;
use keywright_sandbox::{Behaviour, Demo};

use crate::settings::{Bounds, LogFormat, Sandbox, Settings};

/// Writes keys to smart locks, and follows each write until its lock has confirmed it.
#[derive(Parser)]
#[command(name = "keywright", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serves HTTP over the sandbox: shadows in this process, virtual locks, a demo world. The default.
    Serve(Serve),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args)]
struct Serve {
    /// Where to serve HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", value_parser = address)]
    listen: SocketAddr,
    /// Where everything is kept. Made where it is missing.
    #[arg(long, value_name = "DIR", default_value = "./keywright-data")]
    data: PathBuf,
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
    /// The least important lines that are logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,

    /// Whether virtual locks are there to answer.
    #[arg(long, value_enum, default_value = "on")]
    virtual_locks: Switch,
    /// How many locks the demo world has besides 123 and 124: 1001, 1002, …
    #[arg(long, value_name = "N", default_value = "0")]
    locks: u64,
    /// How a virtual lock behaves, or all of them: 123:offline=5s or all:latency=50ms,twice. What is said of one
    /// lock replaces what is said of all. Known are latency=TIME (300ms unless said otherwise),
    /// offline=TIME and offline=always, capacity=N, fail=REASON, twice (it sends each report twice), silent
    /// (it never reports), card=TIME (it needs a card, which somebody presents so much later) and card=never.
    #[arg(long, value_name = "LOCK:LIST", value_parser = behaviour)]
    behaviour: Vec<(Option<u64>, Behaviour)>,
    /// What goes wrong, by the count of the calls or by chance: put@1=refuse,read@2-=lose,update~0.1=delay:200ms,
    /// seed=7. Calls of the shadows are put (an update with a key), update (any) and read, those of the store
    /// save and load. Faults are delay:TIME, not-sent, refuse, drop-answer (it is done, nobody is told), lose (it
    /// is not done, nobody is told), late:TIME (it arrives so much later, nobody is told) and pass.
    #[arg(long, value_name = "PLAN", default_value = "")]
    faults: FaultPlan,

    /// The time for a whole request.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    request: Duration,
    /// The time that a request waits for the lock's turn.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    turn: Duration,
    /// The time for one call of a shadow.
    #[arg(long, value_name = "TIME", default_value = "2500ms", value_parser = time)]
    shadow_call: Duration,
    /// How long a process may act on a write before others take it over.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time)]
    lease: Duration,
    /// How long a lock may take to settle a write.
    #[arg(long, value_name = "TIME", default_value = "48h", value_parser = time)]
    time_to_live: Duration,
    /// From when on a write counts as unconfirmed.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    confirm_within: Duration,
    /// How long a recorded result stays on the shadow at most.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    clear_within: Duration,
    /// How many writes of a lock may be open at once.
    #[arg(long, value_name = "N", default_value = "16")]
    max_open_writes: usize,
    /// How many connections are served at once; further ones wait.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = positive)]
    max_connections: usize,
    /// How many writes are in progress at once; further ones are answered 503 when none of these ends soon.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    max_in_flight: usize,
}

/// The settings that the command line asks for. Prints help and errors of usage itself, and ends then.
///
/// # Errors
/// They contradict each other.
pub(crate) fn read() -> Result<Settings, String> {
    let cli = Cli::parse();
    let serve = match cli.command {
        Some(Command::Serve(serve)) => serve,
        None => cli.serve,
    };
    serve.settings()
}

impl Serve {
    fn settings(self) -> Result<Settings, String> {
        let protocol = keywright_domain::Settings {
            limits: Limits {
                max_open_writes: self.max_open_writes,
                time_to_live: self.time_to_live,
                confirm_within: self.confirm_within,
                clear_within: self.clear_within,
                ..Limits::default()
            },
            request: self.request,
            turn: self.turn,
            shadow_call: self.shadow_call,
            lease: self.lease,
            ..keywright_domain::Settings::default()
        };
        protocol.check().map_err(|e| e.to_string())?;
        let demo = Demo {
            more_locks: self.locks,
        };
        let named = self.behaviour.iter().filter_map(|(lock, _)| *lock);
        if let Some(lock) = { named }.find(|lock| demo.locks().all(|known| known.id != *lock)) {
            return Err(format!(
                "--behaviour names lock {lock}, which is not in the sandbox; see --locks"
            ));
        }
        let for_all = self.behaviour.iter().rfind(|(lock, _)| lock.is_none());
        let for_all = for_all.map(|(_, behaviour)| behaviour.clone());
        let single = self.behaviour.into_iter();
        Ok(Settings {
            listen: self.listen,
            data: self.data,
            log: self.log,
            log_level: self.log_level,
            protocol,
            bounds: Bounds {
                connections: self.max_connections,
                in_flight: self.max_in_flight,
                ..Bounds::default()
            },
            sandbox: Sandbox {
                virtual_locks: self.virtual_locks == Switch::On,
                more_locks: self.locks,
                behaviour: for_all.unwrap_or_default(),
                behaviours: single.filter_map(|(lock, b)| Some((lock?, b))).collect(),
                faults: self.faults,
            },
        })
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write times as in 500ms, 10s or 48h"))
}

fn behaviour(text: &str) -> Result<(Option<u64>, Behaviour), String> {
    let (lock, list) = text
        .split_once(':')
        .ok_or("write it as LOCK:LIST, such as 123:offline=5s or all:twice")?;
    let lock = match lock {
        "all" => None,
        id => Some(id.parse().map_err(|_| "LOCK is a number or all")?),
    };
    if list.trim().is_empty() {
        return Err("say how it behaves, such as 123:offline=5s".into());
    }
    Ok((lock, list.parse().map_err(|e| format!("{e}"))?))
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write it as an IP address and a port, such as 127.0.0.1:8787")
}

fn positive(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    number.ok_or("it is a number from 1 to 1000000")
}
