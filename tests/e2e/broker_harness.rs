//! A deployment over MQTT: mosquitto, the shadow service with virtual locks, and the server, each as a process.

use std::time::Duration;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_tests::{Answer, Program, Shadows, StoreInspector};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BINARY, LOCK, SHORT_TIMEOUTS, eventually};

pub(crate) struct BrokerHarness {
    pub(crate) broker: Mosquitto,
    pub(crate) shadows: Option<Shadows>,
    pub(crate) shadow_folder: TempDir,
    pub(crate) folder: TempDir,
    pub(crate) program: Program,
    certificates: Option<Certificates>,
    /// Logs of shadow services that have ended.
    ended_logs: String,
}

/// The TLS options of a connection to the broker, such as `--mqtt-ca` or `--broker-ca`.
pub(crate) fn tls_options(prefix: &str, certificates: &Certificates, name: &str) -> Vec<String> {
    let files = [
        ("ca", "ca.pem".to_owned()),
        ("certificate", format!("{name}.pem")),
        ("key", format!("{name}.key")),
    ];
    let options = files.map(|(option, file)| {
        let path = certificates.path(&file).display().to_string();
        [format!("--{prefix}-{option}"), path]
    });
    options.concat()
}

pub(crate) fn as_strs(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

impl BrokerHarness {
    /// Starts all processes, the server with [`SHORT_TIMEOUTS`]. `sandbox` are arguments of the shadow service, `serve` those of
    /// the server.
    pub(crate) async fn start(sandbox: &[&str], serve: &[&str]) -> Self {
        Self::start_on(Mosquitto::start(), None, "sandbox", sandbox, serve).await
    }

    /// As [`BrokerHarness::start`], with no timeouts except those in `serve`.
    pub(crate) async fn start_without_short_timeouts(sandbox: &[&str], serve: &[&str]) -> Self {
        let broker = Mosquitto::start();
        let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
        let [shadow_folder, folder] = folders;
        let url = broker.url().to_string();
        let shadows = shadows(&broker, None, "sandbox", &shadow_folder, sandbox);
        let mut all = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
        all.extend(serve);
        let started = Self {
            program: Program::start(BINARY, folder.path(), &all),
            broker,
            shadows: Some(shadows),
            shadow_folder,
            folder,
            certificates: None,
            ended_logs: String::new(),
        };
        started.wait_until_ready().await;
        started
    }

    pub(crate) async fn start_on(
        broker: Mosquitto,
        certificates: Option<Certificates>,
        command: &str,
        sandbox: &[&str],
        serve: &[&str],
    ) -> Self {
        let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
        let [shadow_folder, folder] = folders;
        let shadows = shadows(
            &broker,
            certificates.as_ref(),
            command,
            &shadow_folder,
            sandbox,
        );
        let program = server(&broker, certificates.as_ref(), &folder, serve);
        let started = Self {
            broker,
            shadows: Some(shadows),
            shadow_folder,
            folder,
            program,
            certificates,
            ended_logs: String::new(),
        };
        started.wait_until_ready().await;
        started
    }

    /// Waits until the server is ready.
    pub(crate) async fn wait_until_ready(&self) {
        eventually("the server is ready", || async {
            let answer = self.program.request("GET", "/readyz").send().await;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Kills the shadow service, with the virtual locks in its process.
    pub(crate) fn kill_shadows(&mut self) {
        if let Some(shadows) = self.shadows.take() {
            self.ended_logs += &shadows.log();
            shadows.kill();
        }
    }

    /// The logs of all shadow services, including those that have ended.
    pub(crate) fn shadow_log(&self) -> String {
        let current = self.shadows.as_ref().map(Shadows::log).unwrap_or_default();
        format!("{}{current}", self.ended_logs)
    }

    pub(crate) fn restart_shadows(&mut self, command: &str, arguments: &[&str]) {
        self.kill_shadows();
        let (broker, certificates) = (&self.broker, self.certificates.as_ref());
        let shadows = shadows(
            broker,
            certificates,
            command,
            &self.shadow_folder,
            arguments,
        );
        self.shadows = Some(shadows);
    }

    /// Kills the server, and starts a new one after `pause`.
    pub(crate) fn restart_server(mut self, pause: Duration, serve: &[&str]) -> Self {
        self.program.kill_only();
        std::thread::sleep(pause);
        let program = server(
            &self.broker,
            self.certificates.as_ref(),
            &self.folder,
            serve,
        );
        Self { program, ..self }
    }

    pub(crate) async fn write(&self, lock: u64, key: &str, index: u64, wait: u64) -> Answer {
        let body = json!({ "keyUuid": key, "keyIndexNumber": index });
        let request = self.program.write_key(lock, &body);
        request
            .header("Prefer", &format!("wait={wait}"))
            .send()
            .await
    }

    pub(crate) async fn status(&self, lock: u64, id: &str) -> Value {
        let path = format!("/locks/{lock}/writes/{id}");
        let answer = self.program.get(&path).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    pub(crate) async fn wait_for_state(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), || async {
            let status = self.status(LOCK, id).await;
            (status["state"] == state).then_some(())
        })
        .await;
    }

    /// Writes `count` keys that the lock confirms, and reads the store once all messages have arrived.
    pub(crate) async fn confirmed_writes(&self, count: u64) -> StoreInspector {
        for n in 0..count {
            let answer = self.write(LOCK, &format!("key-{n}"), n, 20).await;
            assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
        }
        // Repeated and late messages may still arrive.
        tokio::time::sleep(Duration::from_millis(500)).await;
        eventually("the invariants hold", || async {
            let store = self.store().await;
            store.check_when_idle(&[LOCK]).await.ok().map(|()| store)
        })
        .await
    }

    pub(crate) async fn store(&self) -> StoreInspector {
        StoreInspector::open_with_shadows_of(self.folder.path(), self.shadow_folder.path()).await
    }
}

fn shadows(
    broker: &Mosquitto,
    certificates: Option<&Certificates>,
    command: &str,
    folder: &TempDir,
    arguments: &[&str],
) -> Shadows {
    let tls = certificates
        .map(|c| tls_options("broker", c, "client"))
        .unwrap_or_default();
    let url = broker.url().to_string();
    let mut all = vec!["--broker", &url];
    all.extend(as_strs(&tls));
    all.extend(arguments);
    Shadows::start(BINARY, command, folder.path(), &all)
}

fn server(
    broker: &Mosquitto,
    certificates: Option<&Certificates>,
    folder: &TempDir,
    arguments: &[&str],
) -> Program {
    let tls = certificates
        .map(|c| tls_options("mqtt", c, "client"))
        .unwrap_or_default();
    let url = broker.url().to_string();
    let mut all = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
    all.extend(SHORT_TIMEOUTS);
    all.extend(as_strs(&tls));
    all.extend(arguments);
    Program::start(BINARY, folder.path(), &all)
}
