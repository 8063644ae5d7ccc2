//! What the server does when it is asked for twice as much as it can do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;

use crate::population::of_sandbox;
use crate::pressure::{self, Clients, Pressed};
use crate::server::Server;

/// How many locks are written to: more than requests at once, so that they do not wait for each other's locks.
const LOCKS: u64 = 20_000;

/// Connections that requests come over: more than requests can be in progress.
const CONNECTIONS: usize = 2000;

/// Requests at once while it is found out roughly what the server can do.
const AT_ONCE: usize = 64;

/// Of that rough capacity, the rates at which the peak is looked for.
const RATES: [f64; 5] = [0.8, 0.85, 0.9, 0.95, 1.0];

/// How often that rate and twice as much are asked for in turns.
const TURNS: usize = 3;

/// How long the first writes go on before it is looked whether each lock has had one.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of what the server does at its best, what it still does at twice as much.
const KEPT: f64 = 0.9;

/// Measures the goodput at twice the capacity.
#[derive(Args)]
pub(crate) struct Overload {
    /// The server's program.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The cores that the server runs on, as for taskset; it is for you to run this on others.
    #[arg(long, value_name = "LIST")]
    server_cores: Option<String>,
    /// How long each span of pressure is.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// How often everything is measured, on a server of its own each time.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
}

/// The goodput of one server.
struct Run {
    /// As fast as answers come, with few requests at once.
    closed: Pressed,
    /// At the rate that most is answered at.
    peak: Pressed,
    twice: Pressed,
}

/// Whether the goodput was kept, and nothing but 200 and 503 was answered.
///
/// # Errors
/// It could not be measured.
pub(crate) async fn run(overload: &Overload) -> Result<bool, String> {
    let mut ratios = Vec::new();
    let mut clean = true;
    let _awake = pressure::awake();
    println!(
        "run   closed loop 200/s   open loop, peak 200/s   at twice: asked/s   200/s   503/s   others   ratio   p99 of 200"
    );
    for n in 1..=overload.runs {
        let Run {
            closed,
            peak,
            twice,
        } = once(overload).await?;
        let (closed, peak) = (closed.goodput(), peak.goodput());
        let (answers, ratio) = (&twice.answers, twice.goodput() / peak);
        let others: u64 =
            answers.statuses.values().sum::<u64>() - answers.of(200) - answers.of(503);
        let others = others + answers.broken;
        let a_second = |count: u64| {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let count = count as f64;
            count / twice.span.as_secs_f64()
        };
        println!(
            "{n:>3}   {closed:>17.0}   {peak:>21.0}   {:>17.0}   {:>5.0}   {:>5.0}   {others:>6}   {ratio:>5.2}   {:>8.0?}",
            a_second(answers.statuses.values().sum::<u64>() + answers.broken),
            twice.goodput(),
            a_second(answers.of(503)),
            answers.good.at(0.99),
        );
        if others > 0 {
            clean = false;
            println!(
                "      {:?}, {} connections broke",
                answers.statuses, answers.broken
            );
        }
        let sent = answers.statuses.values().sum::<u64>() + answers.broken;
        if twice.waited * 100 > sent {
            return Err(format!(
                "{} of {sent} requests were sent late: this machine does not make that load",
                twice.waited
            ));
        }
        if twice.waited > 0 {
            println!("      {} requests were sent late", twice.waited);
        }
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "median of {}: {median:.2} of the peak at twice as much (at least {KEPT})",
        ratios.len()
    );
    Ok(clean && median >= KEPT)
}

async fn once(overload: &Overload) -> Result<Run, String> {
    let data = TempDir::new().map_err(|e| e.to_string())?;
    let locks = LOCKS.to_string();
    let mut arguments = vec!["--locks", &locks, "--virtual-locks", "off"];
    // One client stands for many: its share is all that is in progress.
    arguments.extend(["--max-in-flight-each", "512"]);
    let cores = overload.server_cores.as_deref();
    let server = Server::start(&overload.binary, data.path(), cores, &arguments)?;
    let token = of_sandbox(data.path(), "KEYWRIGHT_TOKEN")?;
    let (make, next) = (pressure::writes(&token, LOCKS), Arc::new(AtomicU64::new(0)));
    // A first write to a lock is cheaper than those that supersede one, of which all the rest are.
    let first = pressure::writes_in_turn(&token, LOCKS);
    while next.load(Ordering::Relaxed) < LOCKS {
        pressure::closed(server.address, &first, &next, AT_ONCE, WARM_UP).await;
    }
    let brief = overload.span / 4;
    let closed = pressure::closed(server.address, &make, &next, AT_ONCE, brief).await;
    if closed.answers.of(200) == 0 {
        return Err("nothing was answered 200".into());
    }
    let mut clients = Clients::connect(server.address, CONNECTIONS).await?;
    let mut best = (0.0, 0.0);
    for of_it in RATES {
        let rate = of_it * closed.goodput();
        let goodput = clients.open(&make, &next, rate, brief).await.goodput();
        if goodput > best.1 {
            best = (rate, goodput);
        }
    }
    // The best of several is flattered by chance, and a store that grows becomes a little slower: both are measured anew, in turns.
    let (mut peak, mut twice) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let at_best = clients.open(&make, &next, best.0, overload.span / 2).await;
        let rate = 2.0 * at_best.goodput();
        peak.push(at_best);
        twice.push(clients.open(&make, &next, rate, overload.span / 2).await);
    }
    Ok(Run {
        closed,
        peak: Pressed::all(peak),
        twice: Pressed::all(twice),
    })
}
