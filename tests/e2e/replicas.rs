//! Two replicas on one PostgreSQL behind nginx, with the shadows and virtual locks in a process of their own behind a
//! broker. With `TEST_TOPOLOGY=replicas`, [`World`](crate::harness::World) serves its tests from such a world.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_mqtt::mosquitto::Mosquitto;
use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::{Program, Proxy, Shadows, StoreInspector, recipe, with_lines};
use tempfile::TempDir;

use crate::answer_log;
use crate::answer_log::{AnswerLog, LoadControl};
use crate::harness::{BINARY, BRISK};

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 6;

/// How long an intent may stay open: the lease of [`BRISK`] and five seconds.
const LONGEST_OPEN: Duration = Duration::from_secs(13);

/// Several times, one of two replicas dies under load and comes back: clients see nothing but what is allowed, the
/// other replica takes over what the dead one had begun, and the books balance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_under_load_loses_nothing() {
    let mut arguments = BRISK.to_vec();
    arguments.extend(["--locks", "20"]);
    let folder = TempDir::new().expect("a folder");
    let mut sandbox = arguments.clone();
    sandbox.extend(["--behaviour", "all:latency=0s"]);
    // What half of the locks were to do is known by nobody's report, so that somebody has to take it over.
    let silent: Vec<String> = (1001..=1010).map(|id| format!("{id}:silent")).collect();
    sandbox.extend(silent.iter().flat_map(|lock| ["--behaviour", lock]));
    let (around, mut replicas) = Surroundings::start(BINARY, folder.path(), &sandbox, 2);
    let (control, target) = (
        Arc::<LoadControl>::default(),
        (around.nginx.address, replicas[0].api_key.clone()),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (target, control) = (target.clone(), control.clone());
            tokio::spawn(answer_log::load(
                target,
                format!("c{client}"),
                LOCKS,
                control,
            ))
        })
        .collect();
    let mut logged = String::new();
    for number in [0, 1, 0, 1] {
        control.wait_for_more(40).await;
        let port = replicas[number].address;
        replicas[number].kill_only();
        logged.push_str(&replicas[number].log());
        control.wait_for_more(20).await;
        replicas[number] = around.replica(BINARY, folder.path(), &arguments, number, Some(port));
    }
    control.stop();
    let mut told: Vec<AnswerLog> = Vec::new();
    for client in clients {
        told.extend(client.await.expect("a client"));
    }
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for told in &told {
        *counts.entry(told.answer.status).or_default() += 1;
    }
    println!("{counts:?}");
    assert!(
        counts
            .keys()
            .all(|status| [200, 502, 503, 504].contains(status)),
        "{counts:?}"
    );
    let locks: Vec<u64> = LOCKS.collect();
    let mut last = Ok(());
    for _ in 0..100 {
        let books = around.books().await;
        last = books.check_at_rest(&locks).await;
        if last.is_ok() {
            answer_log::check(&books, &told, LOCKS, LONGEST_OPEN)
                .await
                .expect("nothing is lost");
            answer_log::decided(&books, &told)
                .await
                .expect("each 504 is decided");
            logged.extend(replicas.iter().map(Program::log));
            assert!(
                logged.contains("taken over"),
                "one took over from the other"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{last:?}: {counts:?}");
}

/// What stands around the replicas.
pub(crate) struct Surroundings {
    pub(crate) server: Arc<PostgresServer>,
    pub(crate) database: String,
    pub(crate) shadow_folder: TempDir,
    pub(crate) nginx: Proxy,
    pub(crate) shadows: Option<Shadows>,
    _broker: Mosquitto,
}

impl Surroundings {
    /// Starts them and so many replicas, of which the first answers for nginx.
    pub(crate) fn start(
        binary: &str,
        folder: &Path,
        arguments: &[&str],
        replicas: usize,
    ) -> (Self, Vec<Program>) {
        let server = PostgresServer::shared();
        let database = server.database();
        let broker = Mosquitto::start();
        let url = broker.url().to_string();
        let shadow_folder = TempDir::new().expect("a folder");
        let (mut sandbox, mut serve) = (vec!["--broker", &url], Vec::new());
        let (mut given, mut command) = (arguments.iter(), "sandbox");
        while let Some(option) = given.next() {
            let value = given.next().expect("each option has a value");
            match *option {
                "--virtual-locks" => command = "shadow",
                "--locks" => {
                    sandbox.extend([option, value]);
                    serve.extend([option, value]);
                }
                "--behaviour" => sandbox.extend([option, value]),
                option => serve.extend([option, value]),
            }
        }
        if command == "shadow" {
            sandbox.truncate(2);
        }
        let shadows = Shadows::start(binary, command, shadow_folder.path(), &sandbox);
        let programs: Vec<Program> = (0..replicas)
            .map(|n| replica(binary, folder, &database, &url, n, &serve))
            .collect();
        let addresses: Vec<SocketAddr> = programs.iter().map(|p| p.address).collect();
        let surroundings = Self {
            nginx: nginx(&addresses, "60s"),
            server,
            database,
            shadow_folder,
            shadows: Some(shadows),
            _broker: broker,
        };
        (surroundings, programs)
    }

    /// One more replica, or one in the place of another that is gone.
    pub(crate) fn replica(
        &self,
        binary: &str,
        folder: &Path,
        arguments: &[&str],
        number: usize,
        address: Option<SocketAddr>,
    ) -> Program {
        let url = self._broker.url().to_string();
        let mut all = arguments.to_vec();
        let address = address.map(|address| address.to_string());
        if let Some(address) = &address {
            all.extend(["--listen", address]);
        }
        replica(binary, folder, &self.database, &url, number, &all)
    }

    /// What the replicas keep.
    pub(crate) async fn books(&self) -> StoreInspector {
        StoreInspector::read_database(&self.server, &self.database, self.shadow_folder.path()).await
    }
}

fn replica(
    binary: &str,
    folder: &Path,
    database: &str,
    broker: &str,
    number: usize,
    arguments: &[&str],
) -> Program {
    let client = format!("replica-{number}");
    let mut all = vec!["--store", database, "--shadow", "mqtt"];
    all.extend(["--mqtt-broker", broker, "--mqtt-client-id", &client]);
    all.extend(arguments);
    let program = Program::start(binary, folder, &all);
    wait_until_ready(program.address);
    program
}

fn wait_until_ready(address: SocketAddr) {
    use std::io::{Read, Write};
    for _ in 0..1000 {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        if ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the replica at {address} is not ready");
}

/// An nginx in front of servers, which keeps its idle connections to them for that time. All else is as docs/operating.md
/// recommends, but TLS.
pub(crate) fn nginx(upstreams: &[SocketAddr], keepalive_timeout: &str) -> Proxy {
    let servers: String = upstreams
        .iter()
        .map(|u| format!("server {u} max_fails=0; "))
        .collect();
    Proxy::start("nginx", &["-e", "stderr", "-c"], |address, folder| {
        let at = folder.display();
        let recipe = with_lines(
            &recipe("**nginx**"),
            &[
                ("server 10.0.0.1:8787", &servers),
                ("server 10.0.0.2:8787", ""),
                (
                    "keepalive_timeout 60s;",
                    &format!("keepalive_timeout {keepalive_timeout};"),
                ),
                ("listen 443 ssl;", &format!("listen {address};")),
            ],
        );
        format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
            events {{ worker_connections 1024; }}
            http {{
              access_log off;
              client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f;
              uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
              {recipe}
            }}"
        )
    })
}
