//! Random faults of real processes under load: replicas are killed or suspended, the database crashes, and the path to
//! the shadows is slow, broken, silent, or loses answers. Then everything works again, and the store is checked from outside.
//!
//! `CAMPAIGN_MINUTES=30` repeats this for 30 minutes; see `scripts/campaign`.

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
use crate::answer_log::{LoadControl, LoggedAnswer};
use crate::aws::ENVIRONMENT;
use crate::harness::BINARY;

/// The number of rounds in which at least 500 writes have to be accepted.
const MAX_ROUNDS_FOR_500_WRITES: u32 = 8;

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 3;
/// Faults before the deployment recovers.
const CYCLES: usize = 25;

/// A lease of one second, and the timeouts that must fit into it.
const TIMEOUTS: [&str; 10] = [
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

/// The longest time that recovery may take.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(40);

/// The longest time that an intent may be open during the faults.
const MAX_INTENT_AGE: Duration = Duration::from_secs(30);

/// The state of the path to the shadows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShadowPath {
    Clear,
    /// Each answer is delayed.
    Slow(Duration),
    /// The connection breaks when an answer arrives.
    Cut,
    /// Requests arrive, and no answer comes back.
    Silent,
    /// No bytes pass in either direction, and the connection stays open.
    HalfOpen,
}

impl ShadowPath {
    fn passage(self, direction: Direction) -> Forwarding {
        match (self, direction) {
            (Self::HalfOpen, _) | (Self::Silent, Direction::ToClient) => Forwarding::Stall,
            (Self::Slow(delay), Direction::ToClient) => Forwarding::Delay(delay),
            (Self::Cut, Direction::ToClient) => Forwarding::Disconnect,
            _ => Forwarding::Pass,
        }
    }
}

/// The kind of store. With PostgreSQL there are two replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    Sqlite,
    Postgres,
}

struct Deployment {
    kind: StoreKind,
    binary: &'static str,
    folder: TempDir,
    shadow_folder: TempDir,
    _shadows: Shadows,
    path: Arc<Mutex<ShadowPath>>,
    proxy: TcpProxy,
    server: Option<(Arc<PostgresServer>, String)>,
    replicas: Vec<Program>,
}

impl Deployment {
    async fn start(binary: &'static str, kind: StoreKind) -> Self {
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
        let path = Arc::new(Mutex::new(ShadowPath::Clear));
        let (server, shared) = (shadows.rest.expect("REST is served"), path.clone());
        let rule = move |direction, _: &[u8]| shared.lock().expect("no panic").passage(direction);
        let proxy = TcpProxy::start(server, rule).await;
        let server = (kind == StoreKind::Postgres).then(|| {
            let server = Arc::new(PostgresServer::start());
            let database = server.database();
            (server, database)
        });
        let mut deployment = Self {
            kind,
            binary,
            folder,
            shadow_folder,
            _shadows: shadows,
            path,
            proxy,
            server,
            replicas: Vec::new(),
        };
        let count = if kind == StoreKind::Postgres { 2 } else { 1 };
        for _ in 0..count {
            let replica = deployment.replica(None);
            deployment.replicas.push(replica);
        }
        deployment
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
        arguments.extend(TIMEOUTS);
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

    async fn store(&self) -> StoreInspector {
        let shadows = self.shadow_folder.path();
        match &self.server {
            Some((server, database)) => {
                StoreInspector::open_postgres(server, database, shadows).await
            }
            None => StoreInspector::open_with_shadows_of(self.folder.path(), shadows).await,
        }
    }

    /// Causes one random fault, waits, and repairs it.
    async fn cause_fault(&mut self) -> &'static str {
        let pause = |min, max| {
            let milliseconds = fastrand::u64(min..max);
            tokio::time::sleep(Duration::from_millis(milliseconds))
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
                // Shorter or longer than the lease.
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
            fault => {
                let path = match fault {
                    60..70 => ShadowPath::Slow(Duration::from_millis(fastrand::u64(20..600))),
                    70..80 => ShadowPath::Cut,
                    80..90 => ShadowPath::Silent,
                    _ => ShadowPath::HalfOpen,
                };
                *self.path.lock().expect("no panic") = path;
                pause(100, 1500).await;
                *self.path.lock().expect("no panic") = ShadowPath::Clear;
                match path {
                    ShadowPath::Slow(_) => "shadows slow",
                    ShadowPath::Cut => "connections cut",
                    ShadowPath::Silent => "answers lost",
                    _ => "half open",
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Report {
    faults: BTreeMap<&'static str, usize>,
    answered: BTreeMap<u16, usize>,
    aborted_writes: usize,
}

/// Runs one deployment from its start until it has recovered.
async fn round(binary: &'static str, kind: StoreKind, report: &mut Report) -> Result<(), String> {
    let mut deployment = Deployment::start(binary, kind).await;
    let api_key = deployment.replicas[0].api_key.clone();
    let mut answers: Vec<LoggedAnswer> = Vec::new();
    for cycle in 0..CYCLES {
        let control = Arc::<LoadControl>::default();
        let mut clients = JoinSet::new();
        for (n, replica) in deployment.replicas.iter().enumerate() {
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
        *report
            .faults
            .entry(deployment.cause_fault().await)
            .or_default() += 1;
        control.stop();
        answers.extend(clients.join_all().await.into_iter().flatten());
        if cycle % 8 == 7 {
            let store = deployment.store().await;
            answer_log::check(&store, &answers, LOCKS, MAX_INTENT_AGE).await?;
        }
    }
    for logged in &answers {
        *report.answered.entry(logged.answer.status).or_default() += 1;
    }
    check_recovery(&deployment, &answers, report).await
}

/// Waits until all invariants hold, each 504 is decided and each write has ended, without help from outside.
async fn check_recovery(
    deployment: &Deployment,
    answers: &[LoggedAnswer],
    report: &mut Report,
) -> Result<(), String> {
    let (locks, start): (Vec<u64>, _) = (LOCKS.collect(), Instant::now());
    loop {
        let store = deployment.store().await;
        let mut checked = store.check_when_idle(&locks).await;
        for id in store.write_ids() {
            let write = store.write(id).await;
            if checked.is_ok() && (write.is_open() || write.intent().is_some()) {
                checked = Err(format!("{id} is still {}", write.state.name()));
            }
        }
        match checked {
            Ok(()) => {
                answer_log::check(&store, answers, LOCKS, MAX_INTENT_AGE).await?;
                answer_log::check_504s(&store, answers).await?;
                for id in store.write_ids() {
                    let write = store.write(id).await;
                    let aborted = matches!(write.state, WriteState::Aborted { .. });
                    report.aborted_writes += usize::from(aborted);
                }
                return Ok(());
            }
            Err(why) if start.elapsed() > RECOVERY_TIMEOUT => {
                return Err(format!("{:?}: {why}", deployment.kind));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(400)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_nothing() {
    let minutes = std::env::var("CAMPAIGN_MINUTES").ok();
    let minutes: u64 = minutes.map_or(0, |n| n.parse().expect("CAMPAIGN_MINUTES is a number"));
    let (start, mut report, mut rounds) = (Instant::now(), Report::default(), 0);
    loop {
        for kind in [StoreKind::Postgres, StoreKind::Sqlite] {
            let outcome = round(BINARY, kind, &mut report).await;
            outcome.unwrap_or_else(|why| panic!("{why}\n{report:?}"));
            rounds += 1;
        }
        let elapsed = start.elapsed().as_secs();
        println!("{elapsed} s, {rounds} rounds of {CYCLES} cycles, no findings: {report:?}");
        // On a busy machine a round has fewer requests.
        let is_enough = report.answered.get(&200).is_some_and(|n| *n >= 500);
        if elapsed >= minutes * 60 && is_enough {
            break;
        }
        assert!(
            is_enough || rounds < MAX_ROUNDS_FOR_500_WRITES,
            "{report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_answers_before_the_commit_is_detected_on_postgres() {
    let faulty = env!("CARGO_BIN_EXE_keywright-answers-before-commit");
    for _ in 0..3 {
        let mut report = Report::default();
        if let Err(why) = round(faulty, StoreKind::Postgres, &mut report).await {
            assert!(why.contains("I1"), "{why}");
            return;
        }
    }
    panic!("the lost 200 was not found");
}
