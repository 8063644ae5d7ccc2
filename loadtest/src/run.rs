//! `keywright-loadtest run`.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::check::Checked;
use crate::fleet::Fleet;
use crate::goose_client::closed_loop;
use crate::limits::{Limits, compare, percent, time};
use crate::open_loop::open_loop;
use crate::population::{Population, Size};
use crate::process_usage::UsageSampler;
use crate::recorder::{Progress, Recorder};
use crate::report;
use crate::spawned::{Spawn, Spawned};
use crate::summary::{Setting, Summary};
use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// How long locks are given to settle what is under way before all is checked.
const SETTLING: Duration = Duration::from_secs(2);

/// Loads a service with people, locks and faults, and says whether it kept to its limits: the exit code is 0 if it did,
/// 1 if not, and 2 if nothing could be measured.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    spawn: Spawn,
    #[command(flatten)]
    size: Size,
    /// A server that runs already, instead of --spawn; with --population.
    #[arg(long, value_name = "http://HOST:PORT", conflicts_with = "spawn")]
    host: Option<String>,
    /// The file of who loads it, which `prepare` has written.
    #[arg(long, value_name = "FILE")]
    population: Option<PathBuf>,
    /// Load a server that is not on this machine.
    #[arg(long)]
    allow_remote: bool,
    /// The process of the server named by --host, if it runs on this machine: its CPU and memory are sampled once a second. The
    /// server of --spawn is always sampled.
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,
    /// Closed loop: so many people, each of whom does the next thing when the last is done.
    #[arg(long, value_name = "N", default_value = "20")]
    users: usize,
    /// Open loop instead: so many people come each second, whatever became of those before; times count from when they
    /// were meant to come.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// The limits: a file with a table for each environment.
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// Which of them.
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// The JSON of earlier runs, separated by commas, against which this one is held: it may be worse than the worst of them by
    /// as much as they differ, and by a fifth in any case.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    baseline: Vec<PathBuf>,
    /// By what factor it may be worse than a single earlier run, which does not say how much runs differ.
    #[arg(long, value_name = "FACTOR", default_value = "1.5")]
    noise: f64,
    /// Where the report goes, as a page and, beside it, as JSON.
    #[arg(long, value_name = "FILE", default_value = "loadtest.html")]
    report: PathBuf,
}

/// How long an address of the server may take to be connected to.
const CONNECT: Duration = Duration::from_secs(2);

/// Whether it kept to its limits.
///
/// # Errors
/// Nothing could be measured; the text says why.
pub(crate) async fn run(run: &Run) -> Result<bool, String> {
    let limits = match &run.limits {
        Some(path) => Limits::read(path, &run.environment)?,
        None => Limits::default(),
    };
    let earlier = run.baseline.iter().map(|path| read_summary(path));
    let earlier: Vec<Summary> = earlier.collect::<Result<_, _>>()?;
    if run.span.is_zero() {
        return Err("--span must be more than zero".into());
    }
    if run
        .rate
        .is_some_and(|rate| !(rate > 0.0 && rate <= 100_000.0))
    {
        return Err("--rate must be more than 0 and at most 100000".into());
    }
    let target = Target::of(run)?;
    let (population, recorder) = (Arc::new(target.population), Arc::new(Recorder::default()));
    let spawned_pid = target.spawned.as_ref().map(|spawned| spawned.server.id());
    let sampler = spawned_pid
        .or(run.server_pid)
        .map(|pid| UsageSampler::start(pid, recorder.start()));
    let sampler = sampler.transpose()?;
    let telling = tokio::spawn(tell(recorder.clone(), run.span));
    let start = Instant::now();
    let no_permit = match run.rate {
        Some(rate) => open_loop(target.address, rate, run.span, &population, &recorder).await,
        None => {
            let load = closed_loop(target.address, run.users, run.span, &population, &recorder);
            load.await.map_err(|e| e.to_string())?;
            0
        }
    };
    let span = start.elapsed().min(run.span);
    telling.abort();
    let server_usage = sampler.map(UsageSampler::stop);
    println!("the load is over; looking for what was answered");
    tokio::time::sleep(SETTLING).await;
    let record = recorder.take();
    let mut checked = Checked::default();
    let streams = checked.streams(target.address, &population, &record).await;
    if let Some(spawned) = &target.spawned {
        match spawned.held_keys() {
            Ok(held) => checked.held(&streams, &held, &record.undecided),
            Err(why) => checked.given_up = Some(why),
        }
    }
    let long = humantime::format_duration(run.span);
    let fleet = run.spawn.spawn.then_some(&run.spawn.fleet);
    let setting = Setting {
        load: match run.rate {
            Some(rate) => format!("open loop, {rate} arrivals a second for {long}"),
            None => format!("closed loop, {} users for {long}", run.users),
        },
        place: place(),
        service: target.what,
        fleet: fleet.map_or("not ours", |fleet| &fleet.text).to_owned(),
        faults: fleet.map(Fleet::faults).unwrap_or_default(),
    };
    let mut summary = Summary::of(setting, &record, &checked, span);
    summary.no_permit = no_permit;
    summary.server_usage = server_usage;
    summary.verdict = limits.judge(&summary);
    let compared = compare(&summary, &earlier, run.noise);
    summary.verdict.extend(compared);
    summary.passed = summary.verdict.iter().all(|finding| finding.holds);
    write(&run.report, &report::html(&summary))?;
    let json = serde_json::to_string_pretty(&summary).map_err(|e| e.to_string())?;
    let json_path = run.report.with_extension("json");
    write(&json_path, &json)?;
    say(&summary);
    println!(
        "\nreport: {} and {}",
        run.report.display(),
        json_path.display()
    );
    Ok(summary.passed)
}

/// What is loaded.
struct Target {
    address: SocketAddr,
    population: Population,
    what: String,
    /// What was started for it, until it is over.
    spawned: Option<Spawned>,
}

impl Target {
    fn of(run: &Run) -> Result<Self, String> {
        if run.spawn.spawn {
            println!("starting a server and {} locks", run.size.locks);
            let spawned = Spawned::start(&run.spawn, run.size)?;
            return Ok(Self {
                address: spawned.server.address,
                population: spawned.population.clone(),
                what: format!(
                    "{} locks, store {:?}, shadows {:?}",
                    run.size.locks, run.spawn.store, run.spawn.shadow
                )
                .to_lowercase(),
                spawned: Some(spawned),
            });
        }
        let (Some(host), Some(path)) = (&run.host, &run.population) else {
            return Err("say --spawn, or --host and --population".into());
        };
        let address = address_of(host)?;
        if !address.ip().is_loopback() && !run.allow_remote {
            return Err(format!(
                "{host} is not on this machine; to load it all the same, say --allow-remote"
            ));
        }
        Ok(Self {
            address,
            population: Population::read(path)?,
            what: host.clone(),
            spawned: None,
        })
    }
}

/// The address of a server that is named by a URL.
fn address_of(host: &str) -> Result<SocketAddr, String> {
    let host = host.trim();
    let name = host
        .strip_prefix("http://")
        .unwrap_or(host)
        .trim_end_matches('/');
    let found = std::net::ToSocketAddrs::to_socket_addrs(name)
        .map_err(|e| format!("{host}: {e}; write it as http://HOST:PORT"))?;
    let found: Vec<SocketAddr> = found.collect();
    // A name such as localhost has an IPv4 and an IPv6 address, and a server listens at one of them.
    let is_open = |address: &&SocketAddr| TcpStream::connect_timeout(address, CONNECT).is_ok();
    let address = found.iter().find(is_open).or(found.first());
    let address = address.ok_or_else(|| format!("{host} has no address"))?;
    Ok(*address)
}

/// How far it is, every few seconds.
async fn tell(recorder: Arc<Recorder>, span: Duration) {
    let start = Instant::now();
    let mut ticks = interval(PROGRESS);
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

fn say(run: &Summary) {
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
        ("see it", &run.seen),
    ];
    for (what, times) in times {
        println!(
            "time to {what:<8} median {:>9}  p90 {:>9}  p99 {:>9}  p99.9 {:>9}  longest {:>9}",
            time(times.p50),
            time(times.p90),
            time(times.p99),
            time(times.p999),
            time(times.max),
        );
    }
    if run.no_permit > 0 {
        println!(
            "{} arrivals had no place in this program itself: the load was less than asked for",
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

fn read_summary(path: &Path) -> Result<Summary, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} is no report in JSON: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// When and where.
fn place() -> String {
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
    fn a_server_is_found_by_ipv4_ipv6_and_name() {
        // Not every machine calls its IPv6 address localhost, too.
        for (address, name) in [("127.0.0.1", "localhost"), ("[::1]", "[::1]")] {
            let listener = TcpListener::bind(format!("{address}:0")).expect("a port");
            let listening = listener.local_addr().expect("an address");
            let port = listening.port();
            for host in [
                format!("http://{listening}"),
                format!("{listening}/"),
                format!("http://{name}:{port}/\n"),
            ] {
                assert_eq!(address_of(&host), Ok(listening), "{host}");
            }
        }
        let without_port = address_of("http://127.0.0.1").expect_err("no port");
        assert!(without_port.contains("http://HOST:PORT"), "{without_port}");
    }
}
