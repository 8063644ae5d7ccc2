//! Real processes, and whatever may happen to them, at random and under load: replicas are killed and stopped, the
//! database crashes, and the way to the shadows is slow, cut, silent, or loses answers. Then everything works again, and
//! the books are read from outside.
//!
//! `CAMPAIGN_MINUTES=30` goes on for so long; `scripts/campaign` says the rest.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_domain::model::WriteState;
use keywright_testkit::postgres_server::PostgresServer;
use keywright_testkit::tcp_proxy::{Direction, Forwarding, TcpProxy};
use keywright_tests::{Program, Shadows, StoreInspector};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answer_log;
use crate::answer_log::{AnswerLog, LoadControl};
use crate::aws::ENVIRONMENT;
use crate::harness::BINARY;

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 3;
/// How much happens before a world comes to rest.
const CYCLES: usize = 25;

/// A lease of one second, and all that has to be over within it.
const TIMES: [&str; 10] = [
    "--request",
    "650ms",
    "--shadow-call",
    "200ms",
    "--turn",
    "450ms",
    "--lease",
    "1s",
    "--lease-margin",
    "150ms",
];

/// How long everything may take to come to rest.
const REST: Duration = Duration::from_secs(40);

/// How long an intent may be open while things go wrong one after the other.
const LONGEST_OPEN: Duration = Duration::from_secs(30);

/// What is wrong with the way to the shadows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Clear,
    /// Each answer takes so long.
    Slow(Duration),
    /// Connections break when an answer comes.
    Cut,
    /// Requests arrive, and nothing ever comes back.
    Silent,
    /// Nothing gets through in either direction, and nobody is told.
    HalfOpen,
}

impl Way {
    fn passage(self, direction: Direction) -> Forwarding {
        match (self, direction) {
            (Self::HalfOpen, _) | (Self::Silent, Direction::ToClient) => Forwarding::Stall,
            (Self::Slow(span), Direction::ToClient) => Forwarding::Delay(span),
            (Self::Cut, Direction::ToClient) => Forwarding::Disconnect,
            _ => Forwarding::Pass,
        }
    }
}

/// Where the locks are kept, and by how many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    InAFile,
    InADatabase,
}

struct World {
    kept: Kept,
    binary: &'static str,
    folder: TempDir,
    shadow_folder: TempDir,
    _shadows: Shadows,
    way: Arc<Mutex<Way>>,
    proxy: TcpProxy,
    server: Option<(Arc<PostgresServer>, String)>,
    replicas: Vec<Program>,
}

impl World {
    async fn start(binary: &'static str, kept: Kept) -> Self {
        let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
        let [folder, shadow_folder] = folders;
        let rest = [
            "--rest",
            "127.0.0.1:0",
            "--locks",
            "20",
            "--behaviour",
            "all:latency=0s",
        ];
        let shadows = Shadows::start(BINARY, "sandbox", shadow_folder.path(), &rest);
        let way = Arc::new(Mutex::new(Way::Clear));
        let (server, shared) = (shadows.rest.expect("REST is served"), way.clone());
        let rule = move |direction, _: &[u8]| shared.lock().expect("no panic").passage(direction);
        let proxy = TcpProxy::start(server, rule).await;
        let server = (kept == Kept::InADatabase).then(|| {
            let server = Arc::new(PostgresServer::start());
            let database = server.database();
            (server, database)
        });
        let mut world = Self {
            kept,
            binary,
            folder,
            shadow_folder,
            _shadows: shadows,
            way,
            proxy,
            server,
            replicas: Vec::new(),
        };
        let count = if kept == Kept::InADatabase { 2 } else { 1 };
        for _ in 0..count {
            let replica = world.replica(None);
            world.replicas.push(replica);
        }
        world
    }

    fn replica(&self, address: Option<SocketAddr>) -> Program {
        let endpoint = format!("http://{}", self.proxy.address);
        let mut arguments = vec![
            "--shadow",
            "aws",
            "--aws-endpoint",
            &endpoint,
            "--locks",
            "20",
        ];
        arguments.extend([
            "--reports",
            "poll",
            "--poll-every",
            "400ms",
            "--log-level",
            "error",
        ]);
        arguments.extend(TIMES);
        if let Some((_, database)) = &self.server {
            arguments.extend(["--store", database]);
        }
        let address = address.map(|address| address.to_string());
        if let Some(address) = &address {
            arguments.extend(["--listen", address]);
        }
        let folder = self.folder.path();
        Program::start_with(
            self.binary,
            Path::new("."),
            folder,
            &arguments,
            &ENVIRONMENT,
        )
    }

    async fn books(&self) -> StoreInspector {
        let shadows = self.shadow_folder.path();
        match &self.server {
            Some((server, database)) => {
                StoreInspector::read_database(server, database, shadows).await
            }
            None => StoreInspector::read_both(self.folder.path(), shadows).await,
        }
    }

    /// One thing that happens while clients write.
    async fn happens(&mut self) -> &'static str {
        let pause = |least, most| {
            let millis = fastrand::u64(least..most);
            tokio::time::sleep(Duration::from_millis(millis))
        };
        let replica = fastrand::usize(0..self.replicas.len());
        match fastrand::u8(0..100) {
            0..30 => {
                let address = self.replicas[replica].address;
                self.replicas[replica].kill_only();
                pause(0, 300).await;
                self.replicas[replica] = self.replica(Some(address));
                "killed"
            }
            30..50 => {
                // Shorter or longer than a lease.
                self.replicas[replica].signal("STOP");
                pause(200, 4500).await;
                self.replicas[replica].signal("CONT");
                "stopped"
            }
            50..60 => match &self.server {
                Some((server, _)) => {
                    let crashing = server.clone();
                    let crash = tokio::task::spawn_blocking(move || {
                        crashing.stop("immediate");
                        crashing.restart();
                    });
                    crash.await.expect("the database is back");
                    "database crashed"
                }
                None => "nothing",
            },
            way => {
                let way = match way {
                    60..70 => Way::Slow(Duration::from_millis(fastrand::u64(20..600))),
                    70..80 => Way::Cut,
                    80..90 => Way::Silent,
                    _ => Way::HalfOpen,
                };
                *self.way.lock().expect("no panic") = way;
                pause(100, 1500).await;
                *self.way.lock().expect("no panic") = Way::Clear;
                match way {
                    Way::Slow(_) => "shadows slow",
                    Way::Cut => "connections cut",
                    Way::Silent => "answers lost",
                    _ => "half open",
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Report {
    happened: BTreeMap<&'static str, usize>,
    answered: BTreeMap<u16, usize>,
    taken_over_or_found: usize,
}

/// One world, from its start until it has come to rest.
async fn round(binary: &'static str, kept: Kept, report: &mut Report) -> Result<(), String> {
    let mut world = World::start(binary, kept).await;
    let api_key = world.replicas[0].api_key.clone();
    let mut told: Vec<AnswerLog> = Vec::new();
    for cycle in 0..CYCLES {
        let control = Arc::<LoadControl>::default();
        let mut clients = JoinSet::new();
        for (n, replica) in world.replicas.iter().enumerate() {
            for client in 0..CLIENTS {
                let (target, control) = ((replica.address, api_key.clone()), control.clone());
                clients.spawn(answer_log::load(
                    target,
                    format!("c{cycle}-{n}-{client}"),
                    LOCKS,
                    control,
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..250))).await;
        *report.happened.entry(world.happens().await).or_default() += 1;
        control.stop();
        told.extend(clients.join_all().await.into_iter().flatten());
        if cycle % 8 == 7 {
            let books = world.books().await;
            answer_log::check(&books, &told, LOCKS, LONGEST_OPEN).await?;
        }
    }
    for told in &told {
        *report.answered.entry(told.answer.status).or_default() += 1;
    }
    at_rest(&world, &told, report).await
}

/// Everything balances, each 504 is one or the other, and what the shadows have is confirmed: by itself.
async fn at_rest(world: &World, told: &[AnswerLog], report: &mut Report) -> Result<(), String> {
    let (locks, start): (Vec<u64>, _) = (LOCKS.collect(), Instant::now());
    loop {
        let books = world.books().await;
        let mut balanced = books.check_at_rest(&locks).await;
        for id in books.writes() {
            let write = books.write(id).await;
            if balanced.is_ok() && (write.is_open() || write.intent().is_some()) {
                balanced = Err(format!("{id} is still {}", write.state.name()));
            }
        }
        match balanced {
            Ok(()) => {
                answer_log::check(&books, told, LOCKS, LONGEST_OPEN).await?;
                answer_log::decided(&books, told).await?;
                for id in books.writes() {
                    let write = books.write(id).await;
                    let aborted = matches!(write.state, WriteState::Aborted { .. });
                    report.taken_over_or_found += usize::from(aborted);
                }
                return Ok(());
            }
            Err(why) if start.elapsed() > REST => return Err(format!("{:?}: {why}", world.kept)),
            Err(_) => tokio::time::sleep(Duration::from_millis(400)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_real_processes_nothing_is_lost() {
    let minutes = std::env::var("CAMPAIGN_MINUTES").ok();
    let minutes: u64 = minutes.map_or(0, |n| n.parse().expect("CAMPAIGN_MINUTES is a number"));
    let (start, mut report, mut rounds) = (Instant::now(), Report::default(), 0);
    loop {
        for kept in [Kept::InADatabase, Kept::InAFile] {
            let outcome = round(BINARY, kept, &mut report).await;
            outcome.unwrap_or_else(|why| panic!("{why}\n{report:?}"));
            rounds += 1;
        }
        let elapsed = start.elapsed().as_secs();
        println!("{elapsed} s, {rounds} rounds of {CYCLES} cycles, no findings: {report:?}");
        if elapsed >= minutes * 60 {
            break;
        }
    }
    assert!(
        report.answered.get(&200).is_some_and(|n| *n > 500),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_answers_before_the_commit_is_caught_over_a_database() {
    let hasty = env!("CARGO_BIN_EXE_keywright-hasty");
    for _ in 0..3 {
        let mut report = Report::default();
        if let Err(why) = round(hasty, Kept::InADatabase, &mut report).await {
            assert!(why.contains("I1"), "{why}");
            return;
        }
    }
    panic!("a lost 200 was not found");
}
