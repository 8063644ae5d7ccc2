//! Two replicas on one PostgreSQL database behind nginx, and a broker with the shadow service. With
//! `TEST_TOPOLOGY=replicas`, [`Harness`](crate::harness::Harness) runs its tests against them.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_mqtt::mosquitto::Mosquitto;
use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::{Program, Proxy, Shadows, StoreInspector, recipe, with_lines};
use tempfile::TempDir;

/// The processes beside the replicas.
pub(crate) struct ReplicaEnvironment {
    pub(crate) server: Arc<PostgresServer>,
    pub(crate) database: String,
    pub(crate) shadow_folder: TempDir,
    pub(crate) nginx: Proxy,
    pub(crate) shadows: Option<Shadows>,
    broker: Mosquitto,
}

impl ReplicaEnvironment {
    /// Starts the environment and this many replicas. `arguments` are those of a sandbox; each goes to the shadow service,
    /// to the replicas, or to both.
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
        let environment = Self {
            nginx: nginx(&addresses, "60s"),
            server,
            database,
            shadow_folder,
            shadows: Some(shadows),
            broker,
        };
        (environment, programs)
    }

    /// Starts one more replica, or one at the address of a replica that has ended.
    pub(crate) fn replica(
        &self,
        binary: &str,
        folder: &Path,
        arguments: &[&str],
        number: usize,
        address: Option<SocketAddr>,
    ) -> Program {
        let url = self.broker.url().to_string();
        let mut all = arguments.to_vec();
        let address = address.map(|address| address.to_string());
        if let Some(address) = &address {
            all.extend(["--listen", address]);
        }
        replica(binary, folder, &self.database, &url, number, &all)
    }

    /// The store of the replicas.
    pub(crate) async fn store(&self) -> StoreInspector {
        StoreInspector::open_postgres(&self.server, &self.database, self.shadow_folder.path()).await
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
        let get = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        if get().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the replica at {address} is not ready");
}

/// Starts an nginx before these servers, with this idle timeout. All other settings are those that docs/operating.md
/// recommends, without TLS.
pub(crate) fn nginx(upstreams: &[SocketAddr], keepalive_timeout: &str) -> Proxy {
    let servers: String = upstreams
        .iter()
        .map(|u| format!("server {u} max_fails=0; "))
        .collect();
    Proxy::start("nginx", &["-e", "stderr", "-c"], |address, folder| {
        let path = folder.display();
        let recipe = with_lines(
            &recipe("### nginx"),
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
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;
            events {{ worker_connections 1024; }}
            http {{
              access_log off;
              client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f;
              uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
              {recipe}
            }}"
        )
    })
}
