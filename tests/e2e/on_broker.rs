//! The whole over a broker: mosquitto, shadows with locks on them, and the server, each a process.

use std::time::Duration;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_tests::{Answer, Program, Shadows, StoreInspector};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BINARY, BRISK, LOCK, eventually};

pub(crate) struct OnBroker {
    pub(crate) broker: Mosquitto,
    pub(crate) shadows: Option<Shadows>,
    pub(crate) shadow_folder: TempDir,
    pub(crate) folder: TempDir,
    pub(crate) program: Program,
    certificates: Option<Certificates>,
    /// What shadows logged that are gone.
    logged: String,
}

/// The options that lead to a broker: `--mqtt-ca` and its like, or `--broker-ca`.
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

pub(crate) fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

impl OnBroker {
    /// `sandbox` goes to the shadows, `serve` to the server.
    pub(crate) async fn start(sandbox: &[&str], serve: &[&str]) -> Self {
        Self::start_on(Mosquitto::start(), None, "sandbox", sandbox, serve).await
    }

    /// As [`OnBroker::start`], with the server's own times.
    pub(crate) async fn start_plain(sandbox: &[&str], serve: &[&str]) -> Self {
        let broker = Mosquitto::start();
        let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
        let [shadow_folder, folder] = folders;
        let url = broker.url().to_string();
        let shadows = shadows(&broker, None, "sandbox", &shadow_folder, sandbox);
        let mut all = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
        all.extend(serve);
        let world = Self {
            program: Program::start(BINARY, folder.path(), &all),
            broker,
            shadows: Some(shadows),
            shadow_folder,
            folder,
            certificates: None,
            logged: String::new(),
        };
        world.ready().await;
        world
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
        let world = Self {
            broker,
            shadows: Some(shadows),
            shadow_folder,
            folder,
            program,
            certificates,
            logged: String::new(),
        };
        world.ready().await;
        world
    }

    /// Waits until the server is ready.
    pub(crate) async fn ready(&self) {
        eventually("the server is ready", || async {
            let answer = self.program.request("GET", "/readyz").send().await;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// SIGKILL for the shadows, and the locks that are in their process.
    pub(crate) fn kill_shadows(&mut self) {
        if let Some(shadows) = self.shadows.take() {
            self.logged += &shadows.log();
            shadows.kill();
        }
    }

    /// What all shadows have logged, those that are gone as well.
    pub(crate) fn shadow_log(&self) -> String {
        let now = self.shadows.as_ref().map(Shadows::log).unwrap_or_default();
        format!("{}{now}", self.logged)
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

    /// SIGKILL for the server, and a new one in its place.
    pub(crate) fn restart_server(mut self, while_away: Duration, serve: &[&str]) -> Self {
        self.program.kill_only();
        std::thread::sleep(while_away);
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

    pub(crate) async fn until(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), || async {
            let status = self.status(LOCK, id).await;
            (status["state"] == state).then_some(())
        })
        .await;
    }

    /// Writes so many keys, each confirmed by its lock, and reads the books when nothing is on its way any more.
    pub(crate) async fn confirmed_writes(&self, count: u64) -> StoreInspector {
        for n in 0..count {
            let answer = self.write(LOCK, &format!("key-{n}"), n, 20).await;
            assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
        }
        // What is repeated or late is still on its way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        eventually("the books balance", || async {
            let books = self.books().await;
            books.check_at_rest(&[LOCK]).await.ok().map(|()| books)
        })
        .await
    }

    pub(crate) async fn books(&self) -> StoreInspector {
        StoreInspector::read_both(self.folder.path(), self.shadow_folder.path()).await
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
    all.extend(texts(&tls));
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
    all.extend(BRISK);
    all.extend(texts(&tls));
    all.extend(arguments);
    Program::start(BINARY, folder.path(), &all)
}
