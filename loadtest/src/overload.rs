//! `keywright-loadtest overload`: the goodput of a server at twice its capacity.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;

use crate::error::Error;
use crate::population::sandbox_variable;
use crate::server::Server;
use crate::uniform_load;
use crate::uniform_load::{Clients, LoadResult};

/// Number of locks; more than concurrent requests, so that few requests wait for the same lock.
const LOCKS: u64 = 20_000;

/// Number of connections; more than the server admits requests.
const CONNECTIONS: usize = 2000;

/// Concurrent requests of the closed loop that estimates the capacity.
const CONCURRENT: usize = 64;

/// The first rate of the search for the peak, as a share of the estimated capacity.
const FIRST_RATE: f64 = 0.5;

/// The step of that search, as a share of the estimated capacity.
const RATE_STEP: f64 = 0.05;

/// The maximum number of rates to try.
const MAX_RATES: u32 = 30;

/// Below this share of 200s, the server does not keep up with the rate.
const MIN_SHARE_OF_200: f64 = 0.95;

/// The number of times that the peak rate and twice that rate are measured, alternately.
const ALTERNATIONS: usize = 4;

/// The duration of one round of the first writes.
const WARM_UP: Duration = Duration::from_millis(500);

/// The minimum goodput at twice the peak rate, as a share of the peak goodput.
const MIN_RATIO: f64 = 0.9;

/// Measures the goodput at twice the capacity.
#[derive(Args)]
pub(crate) struct Overload {
    /// The program `keywright`.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The CPU cores of the server, as for taskset. Run this program on other cores.
    #[arg(long, value_name = "LIST")]
    server_cores: Option<String>,
    /// The duration of each measurement at the peak rate and at twice that rate; those of the search are half as long.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// The number of runs, each with a new server.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
}

/// Runs the command. Returns whether the goodput is high enough and all answers are 200 or 503.
///
/// # Errors
/// Nothing could be measured.
pub(crate) async fn run(overload: &Overload) -> Result<bool, Error> {
    let mut ratios = Vec::new();
    let mut clean = true;
    let _awake = uniform_load::keep_awake();
    println!(
        "run   closed loop 200/s   open loop, peak 200/s   at twice: sent/s   200/s   503/s   others   ratio   p99 of 200"
    );
    for n in 1..=overload.runs {
        let (closed, peak, twice) = measure(overload).await?;
        let (answers, ratio) = (&twice.answers, twice.goodput() / peak.goodput());
        println!(
            "{n:>3}   {:>17.0}   {:>21.0}   {:>17.0}   {:>5.0}   {:>5.0}   {:>6}   {ratio:>5.2}   {:>8.0?}",
            closed.goodput(),
            peak.goodput(),
            twice.per_second(twice.sent()),
            twice.goodput(),
            twice.per_second(answers.count(503)),
            others(&twice),
            answers.accepted.quantile(0.99),
        );
        for result in [&peak, &twice] {
            clean &= check_statuses(result)?;
        }
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "median of {}: {median:.2} of the peak goodput at twice the rate (at least {MIN_RATIO})",
        ratios.len()
    );
    Ok(clean && median >= MIN_RATIO)
}

/// Answers that are neither 200 nor 503, and connections that broke.
fn others(result: &LoadResult) -> u64 {
    result.sent() - result.answers.count(200) - result.answers.count(503)
}

/// Whether all answers are 200 or 503.
///
/// # Errors
/// More than 1 % of the requests were sent late.
fn check_statuses(result: &LoadResult) -> Result<bool, Error> {
    let (late, sent) = (result.late, result.sent());
    if late * 100 > sent {
        return Err(Error::Service(format!(
            "{late} of {sent} requests were sent late: this machine cannot create that load"
        )));
    }
    if late > 0 {
        println!("      {late} requests were sent late");
    }
    let clean = others(result) == 0;
    if !clean {
        let (statuses, broken) = (&result.answers.statuses, result.answers.broken);
        println!("      {statuses:?}, {broken} connections broke");
    }
    Ok(clean)
}

/// Measures one server: in a closed loop with few connections, at its peak rate, and at twice that rate.
async fn measure(overload: &Overload) -> Result<(LoadResult, LoadResult, LoadResult), Error> {
    let data = TempDir::new()?;
    let locks = LOCKS.to_string();
    let mut arguments = vec!["--locks", &locks, "--virtual-locks", "off"];
    // This one client stands for many, so that it may use all permits.
    arguments.extend(["--max-in-flight-each", "512"]);
    let cores = overload.server_cores.as_deref();
    let server = Server::start(&overload.binary, data.path(), cores, &arguments, &[])?;
    let token = sandbox_variable(data.path(), "KEYWRIGHT_TOKEN")?;
    let (factory, next) = (
        uniform_load::writes(&token, LOCKS),
        Arc::new(AtomicU64::new(0)),
    );
    // The first write to a lock is cheaper than the later ones, which supersede an open write.
    let first = uniform_load::writes_in_turn(&token, LOCKS);
    while next.load(Ordering::Relaxed) < LOCKS {
        uniform_load::closed(server.address, &first, &next, CONCURRENT, WARM_UP).await;
    }
    let brief = overload.span / 2;
    let closed = uniform_load::closed(server.address, &factory, &next, CONCURRENT, brief).await;
    if closed.answers.count(200) == 0 {
        return Err(Error::Service("no request was answered with 200".into()));
    }
    let mut clients = Clients::connect(server.address, CONNECTIONS).await?;
    let (mut best, mut peak_rate) = (0.0, 0.0);
    let mut missed = 0;
    for n in 0..MAX_RATES {
        let rate = (FIRST_RATE + RATE_STEP * f64::from(n)) * closed.goodput();
        let goodput = clients.open(&factory, &next, rate, brief).await.goodput();
        if goodput > best {
            (best, peak_rate) = (goodput, rate);
        }
        // A server may stall once at any rate; two misses in a row are above its peak.
        missed = if goodput < MIN_SHARE_OF_200 * rate {
            missed + 1
        } else {
            0
        };
        if missed == 2 {
            break;
        }
    }
    if missed < 2 {
        return Err(Error::Service(format!(
            "the server kept up with {peak_rate:.0} requests a second; its peak was not found"
        )));
    }
    // The best of several measurements is too high by chance, and a growing store becomes slower. So both rates are measured again,
    // alternately and with alternating order.
    let (mut peak, mut twice) = (Vec::new(), Vec::new());
    for turn in 0..ALTERNATIONS {
        for at_peak in [turn % 2 == 0, turn % 2 == 1] {
            let (rate, spans) = match at_peak {
                true => (peak_rate, &mut peak),
                false => (2.0 * peak_rate, &mut twice),
            };
            spans.push(clients.open(&factory, &next, rate, overload.span).await);
        }
    }
    Ok((closed, LoadResult::merge(peak), LoadResult::merge(twice)))
}
