//! What the server does when it is asked for twice as much as it can do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;

use crate::load_writes;
use crate::load_writes::{Clients, Pressed};
use crate::population::of_sandbox;
use crate::server::Server;

/// How many locks are written to: more than requests at once, so that they do not wait for each other's locks.
const LOCKS: u64 = 20_000;

/// Connections that requests come over: more than requests can be in progress.
const CONNECTIONS: usize = 2000;

/// Requests at once while it is found out roughly what the server can do.
const AT_ONCE: usize = 64;

/// Of that rough capacity, the rate at which the search for the peak begins, and how much is added each time.
const SEARCH: (f64, f64) = (0.5, 0.05);

/// How many rates are tried at most.
const RATES: u32 = 30;

/// A server that answers less of what is asked with 200 does not keep up.
const KEEPS_UP: f64 = 0.95;

/// How often the rate of the peak and twice as much are asked for in turns.
const TURNS: usize = 4;

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
    /// How long each span at the peak and at twice as much is; those in which the peak is looked for are half as long.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = humantime::parse_duration)]
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
    let _awake = load_writes::awake();
    println!(
        "run   closed loop 200/s   open loop, peak 200/s   at twice: asked/s   200/s   503/s   others   ratio   p99 of 200"
    );
    for n in 1..=overload.runs {
        let Run {
            closed,
            peak,
            twice,
        } = once(overload).await?;
        let (answers, ratio) = (&twice.answers, twice.goodput() / peak.goodput());
        println!(
            "{n:>3}   {:>17.0}   {:>21.0}   {:>17.0}   {:>5.0}   {:>5.0}   {:>6}   {ratio:>5.2}   {:>8.0?}",
            closed.goodput(),
            peak.goodput(),
            twice.a_second(twice.sent()),
            twice.goodput(),
            twice.a_second(answers.of(503)),
            others(&twice),
            answers.good.at(0.99),
        );
        for pressed in [&peak, &twice] {
            clean &= is_as_asked(pressed)?;
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

/// Answers that are neither 200 nor 503, and connections that broke.
fn others(pressed: &Pressed) -> u64 {
    pressed.sent() - pressed.answers.of(200) - pressed.answers.of(503)
}

/// Whether nothing but 200 and 503 was answered.
///
/// # Errors
/// It is not what was asked for: requests were sent late.
fn is_as_asked(pressed: &Pressed) -> Result<bool, String> {
    let (late, sent) = (pressed.waited, pressed.sent());
    if late * 100 > sent {
        return Err(format!(
            "{late} of {sent} requests were sent late: this machine does not make that load"
        ));
    }
    if late > 0 {
        println!("      {late} requests were sent late");
    }
    let clean = others(pressed) == 0;
    if !clean {
        let (statuses, broken) = (&pressed.answers.statuses, pressed.answers.broken);
        println!("      {statuses:?}, {broken} connections broke");
    }
    Ok(clean)
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
    let (make, next) = (
        load_writes::writes(&token, LOCKS),
        Arc::new(AtomicU64::new(0)),
    );
    // A first write to a lock is cheaper than those that supersede one, of which all the rest are.
    let first = load_writes::writes_in_turn(&token, LOCKS);
    while next.load(Ordering::Relaxed) < LOCKS {
        load_writes::closed(server.address, &first, &next, AT_ONCE, WARM_UP).await;
    }
    let brief = overload.span / 2;
    let closed = load_writes::closed(server.address, &make, &next, AT_ONCE, brief).await;
    if closed.answers.of(200) == 0 {
        return Err("nothing was answered 200".into());
    }
    let mut clients = Clients::connect(server.address, CONNECTIONS).await?;
    let (mut best, mut peak_rate, mut beyond) = (0.0, 0.0, 0);
    let (first, step) = SEARCH;
    for n in 0..RATES {
        let rate = (first + step * f64::from(n)) * closed.goodput();
        let goodput = clients.open(&make, &next, rate, brief).await.goodput();
        if goodput > best {
            (best, peak_rate) = (goodput, rate);
        }
        // A server may be held up once at any rate; one that does not keep up twice in a row is beyond its peak.
        beyond = if goodput < KEEPS_UP * rate {
            beyond + 1
        } else {
            0
        };
        if beyond == 2 {
            break;
        }
    }
    if beyond < 2 {
        return Err(format!(
            "the server kept up with {peak_rate:.0} a second: its peak was not found"
        ));
    }
    // The best of several is flattered by chance, and a store that grows becomes a little slower: both are measured anew, in turns, of
    // which every other has them the other way round.
    let (mut peak, mut twice) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        for at_peak in [turn % 2 == 0, turn % 2 == 1] {
            let (rate, spans) = match at_peak {
                true => (peak_rate, &mut peak),
                false => (2.0 * peak_rate, &mut twice),
            };
            spans.push(clients.open(&make, &next, rate, overload.span).await);
        }
    }
    Ok(Run {
        closed,
        peak: Pressed::all(peak),
        twice: Pressed::all(twice),
    })
}
