//! `keywright-loadtest run`.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::closed_loop::closed_loop;
use crate::error::Error;
use crate::fleet::Fleet;
use crate::format::{percent, time};
use crate::local_service::{LocalService, Spawn};
use crate::lost_writes::CheckResult;
use crate::open_loop::open_loop;
use crate::population::{Population, Size};
use crate::process_usage::UsageSampler;
use crate::recorder::{Progress, Recorder};
use crate::report;
use crate::summary::{Setting, Summary};
use crate::verdict::{Limits, compare};
use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The interval between progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The time between the load and the checks, in which locks settle the last writes.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Runs a load test with personas, virtual locks and faults, and compares the results with limits. The exit code is 0 if all
/// limits hold, 1 if not, and 2 if nothing could be measured.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    spawn: Spawn,
    #[command(flatten)]
    size: Size,
    /// A running server, instead of --spawn; needs --population.
    #[arg(long, value_name = "http://HOST:PORT", conflicts_with = "spawn")]
    host: Option<String>,
    /// The population file, written by `prepare`.
    #[arg(long, value_name = "FILE")]
    population: Option<PathBuf>,
    /// Allow a server on another machine.
    #[arg(long)]
    allow_remote: bool,
    /// The process id of the server of --host, if it runs on this machine. Its CPU and memory are sampled once a second. The server
    /// of --spawn is always sampled.
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,
    /// Closed loop: the number of users, each of which waits for its answers.
    #[arg(long, value_name = "N", default_value = "20")]
    users: usize,
    /// Open loop instead: the number of users that arrive each second, independent of earlier answers. Latencies count from the
    /// intended arrival.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// The duration of the load.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// The file of limits, with a table for each environment.
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// The environment whose limits apply.
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// JSON reports of earlier runs, separated by commas, to compare with. This run may be worse than the worst of them by as much as
    /// they differ, and by a fifth in any case.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    baseline: Vec<PathBuf>,
    /// The factor by which this run may be worse than a single earlier run.
    #[arg(long, value_name = "FACTOR", default_value = "1.5")]
    noise: f64,
    /// The file of the HTML report; the JSON report is written beside it.
    #[arg(long, value_name = "FILE", default_value = "loadtest.html")]
    report: PathBuf,
}

/// The longest time to connect to an address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the command. Returns whether all limits hold.
///
/// # Errors
/// Nothing could be measured; the text contains the reason.
pub(crate) async fn run(run: &Run) -> Result<bool, Error> {
    let limits = match &run.limits {
        Some(path) => Limits::read(path, &run.environment)?,
        None => Limits::default(),
    };
    let earlier = run.baseline.iter().map(|path| read_summary(path));
    let earlier: Vec<Summary> = earlier.collect::<Result<_, _>>()?;
    if run.span.is_zero() {
        return Err(Error::Options("--span must be more than zero".into()));
    }
    if run
        .rate
        .is_some_and(|rate| !(rate > 0.0 && rate <= 100_000.0))
    {
        let text = "--rate must be more than 0 and at most 100000";
        return Err(Error::Options(text.into()));
    }
    let target = Target::open(run)?;
    let (population, recorder) = (Arc::new(target.population), Arc::new(Recorder::default()));
    let started_pid = target.started.as_ref().map(|service| service.server.id());
    let sampler = started_pid
        .or(run.server_pid)
        .map(|pid| UsageSampler::start(pid, recorder.start()));
    let sampler = sampler.transpose()?;
    let progress = tokio::spawn(print_progress(recorder.clone(), run.span));
    let start = Instant::now();
    let skipped = match run.rate {
        Some(rate) => open_loop(target.address, rate, run.span, &population, &recorder).await,
        None => {
            let load = closed_loop(target.address, run.users, run.span, &population, &recorder);
            load.await.map_err(|e| Error::Goose(Box::new(e)))?;
            0
        }
    };
    let span = start.elapsed().min(run.span);
    progress.abort();
    let server_usage = sampler.map(UsageSampler::stop);
    println!("the load has ended; checking the events and the locks");
    tokio::time::sleep(SETTLE_TIME).await;
    let record = recorder.take();
    let mut checked = CheckResult::default();
    let events = checked
        .check_events(target.address, &population, &record)
        .await;
    if let Some(service) = &target.started {
        match service.held_keys() {
            Ok(held) => checked.check_held_keys(&events, &held, &record.undecided),
            Err(why) => checked.aborted = Some(why.to_string()),
        }
    }
    let duration = humantime::format_duration(run.span);
    let fleet = run.spawn.spawn.then_some(&run.spawn.fleet);
    let setting = Setting {
        load: match run.rate {
            Some(rate) => format!("open loop, {rate} arrivals a second for {duration}"),
            None => format!("closed loop, {} users for {duration}", run.users),
        },
        place: time_and_cores(),
        service: target.description,
        fleet: fleet
            .map_or("not started by the load test", |fleet| &fleet.text)
            .to_owned(),
        faults: fleet.map(Fleet::faults).unwrap_or_default(),
    };
    let mut summary = Summary::of(setting, &record, &checked, span);
    summary.no_permit = skipped;
    summary.server_usage = server_usage;
    summary.verdict = limits.judge(&summary);
    let compared = compare(&summary, &earlier, run.noise);
    summary.verdict.extend(compared);
    summary.passed = summary.verdict.iter().all(|finding| finding.holds);
    write(&run.report, &report::html(&summary))?;
    let json = serde_json::to_string_pretty(&summary)?;
    let json_path = run.report.with_extension("json");
    write(&json_path, &json)?;
    print_summary(&summary);
    println!(
        "\nreport: {} and {}",
        run.report.display(),
        json_path.display()
    );
    Ok(summary.passed)
}

/// The service under load.
struct Target {
    address: SocketAddr,
    population: Population,
    description: String,
    /// The processes that the load test has started.
    started: Option<LocalService>,
}

impl Target {
    fn open(run: &Run) -> Result<Self, Error> {
        if run.spawn.spawn {
            println!("starting a server and {} locks", run.size.locks);
            let service = LocalService::start(&run.spawn, run.size)?;
            return Ok(Self {
                address: service.server.address,
                population: service.population.clone(),
                description: format!(
                    "{} locks, store {:?}, shadows {:?}",
                    run.size.locks, run.spawn.store, run.spawn.shadow
                )
                .to_lowercase(),
                started: Some(service),
            });
        }
        let (Some(host), Some(path)) = (&run.host, &run.population) else {
            let text = "use --spawn, or --host with --population";
            return Err(Error::Options(text.into()));
        };
        let address = address_of(host)?;
        if !address.ip().is_loopback() && !run.allow_remote {
            return Err(Error::Options(format!(
                "{host} is not on this machine; --allow-remote allows it"
            )));
        }
        Ok(Self {
            address,
            population: Population::read(path)?,
            description: host.clone(),
            started: None,
        })
    }
}

/// The address of a server URL.
fn address_of(host: &str) -> Result<SocketAddr, Error> {
    let host = host.trim();
    let name = host
        .strip_prefix("http://")
        .unwrap_or(host)
        .trim_end_matches('/');
    let found = std::net::ToSocketAddrs::to_socket_addrs(name)
        .map_err(|e| Error::Options(format!("{host}: {e}; write it as http://HOST:PORT")))?;
    let found: Vec<SocketAddr> = found.collect();
    // A name such as localhost can have several addresses, and the server may listen at only one of them.
    let is_open =
        |address: &&SocketAddr| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok();
    let address = found.iter().find(is_open).or(found.first());
    let address = address.ok_or_else(|| Error::Options(format!("{host} has no address")))?;
    Ok(*address)
}

/// Prints the progress every few seconds.
async fn print_progress(recorder: Arc<Recorder>, span: Duration) {
    let start = Instant::now();
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Progress { accepted, settled } = recorder.progress();
        println!(
            "{:>4} s of {}: {} writes accepted, p99 {}; {} settled by their locks, p99 {}",
            start.elapsed().as_secs(),
            humantime::format_duration(span),
            accepted.0,
            time(accepted.1.as_secs_f64() * 1000.0),
            settled.0,
            time(settled.1.as_secs_f64() * 1000.0),
        );
    }
}

fn print_summary(run: &Summary) {
    println!("\n{}; {}", run.setting.load, run.setting.service);
    println!(
        "{:.1} writes and {:.0} requests a second; {} not confirmed, {} late, {} refused by locks, {} turned away, {} errors",
        run.writes_per_second,
        run.requests_per_second,
        percent(run.unconfirmed_share),
        percent(run.late_share),
        percent(run.refused_by_locks_share),
        percent(run.turned_away_share),
        percent(run.error_share),
    );
    let times = [
        ("accept", &run.accept),
        ("confirm", &run.confirm),
        ("visible to the client", &run.seen),
    ];
    for (what, times) in times {
        println!(
            "time to {what:<21} median {:>9}  p90 {:>9}  p99 {:>9}  p99.9 {:>9}  longest {:>9}",
            time(times.p50),
            time(times.p90),
            time(times.p99),
            time(times.p999),
            time(times.max),
        );
    }
    if run.no_permit > 0 {
        println!(
            "{} arrivals were skipped, because too many personas were active: the load was lower than requested",
            run.no_permit
        );
    }
    println!(
        "{} writes checked, {} of them confirmed",
        run.writes_checked, run.confirmed_checked
    );
    for line in run
        .missing_shown
        .iter()
        .chain(&run.unexpected_shown)
        .take(10)
    {
        println!("  {line}");
    }
    println!();
    for finding in &run.verdict {
        let word = if finding.holds { "ok  " } else { "FAIL" };
        println!(
            "{word}  {}: {} ({})",
            finding.what, finding.measured, finding.limit
        );
    }
    let failed = run.verdict.iter().filter(|finding| !finding.holds).count();
    match failed {
        0 => println!("passed"),
        n => println!("failed: {n} of {}", run.verdict.len()),
    }
}

fn read_summary(path: &Path) -> Result<Summary, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    serde_json::from_str(&text).map_err(Error::file(path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::file(path))
}

/// The time and the number of CPU cores.
fn time_and_cores() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::disallowed_methods, reason = "the date of the report")]
    let now = std::time::SystemTime::now();
    let now = humantime::format_rfc3339_seconds(now).to_string();
    format!(
        "{} UTC, {cores} cores",
        now.replace('T', " ").trim_end_matches('Z')
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_is_resolved_by_ipv4_ipv6_and_name() {
        // Not on every machine does localhost have an IPv6 address.
        for (address, name) in [("127.0.0.1", "localhost"), ("[::1]", "[::1]")] {
            let listener = TcpListener::bind(format!("{address}:0")).expect("a port");
            let listening = listener.local_addr().expect("an address");
            let port = listening.port();
            for host in [
                format!("http://{listening}"),
                format!("{listening}/"),
                format!("http://{name}:{port}/\n"),
            ] {
                assert_eq!(address_of(&host).ok(), Some(listening), "{host}");
            }
        }
        let without_port = address_of("http://127.0.0.1")
            .expect_err("no port")
            .to_string();
        assert!(without_port.contains("http://HOST:PORT"), "{without_port}");
    }
}
