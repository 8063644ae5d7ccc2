//! A mosquitto of a test's own, on a free port of loopback, and certificates for it.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot start its broker fails"
)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::broker::{BrokerUrl, TlsFiles};

/// A running broker, killed when it is dropped.
pub struct Mosquitto {
    folder: TempDir,
    port: u16,
    tls: bool,
    child: Option<Child>,
}

/// What the pages of documentation recommend besides the listener.
const SETTINGS: &str = "allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 100
max_queued_messages 10000
max_packet_size 132096
persistent_client_expiration 1d
persistence false
user root
log_dest none
";

impl Mosquitto {
    /// A broker over plain TCP.
    pub fn start() -> Self {
        Self::with(SETTINGS, None)
    }

    /// A broker over plain TCP as it is without a file of settings.
    pub fn start_with_defaults() -> Self {
        Self::with("allow_anonymous true\nuser root\nlog_dest none\n", None)
    }

    /// A broker that shows a certificate and wants to see one: mutual TLS.
    pub fn start_tls(certificates: &Certificates) -> Self {
        Self::with(SETTINGS, Some(certificates))
    }

    fn with(settings: &str, certificates: Option<&Certificates>) -> Self {
        // A port that was free may be taken before the broker has it.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let folder = TempDir::new().unwrap();
            let mut config = format!("listener {port} 127.0.0.1\n{settings}");
            if let Some(files) = certificates {
                let of = |name: &str| files.path(name).display().to_string();
                config.push_str(&format!(
                    "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                    of("ca.pem"),
                    of("broker.pem"),
                    of("broker.key"),
                ));
            }
            std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
            let tls = certificates.is_some();
            let mut broker = Self {
                folder,
                port,
                tls,
                child: None,
            };
            if broker.try_run() {
                return broker;
            }
        }
        panic!("mosquitto does not start; is it installed?");
    }

    fn try_run(&mut self) -> bool {
        // Debian keeps it where only an administrator's path leads.
        let elsewhere = Path::new("/usr/sbin/mosquitto");
        let program = if elsewhere.exists() {
            elsewhere
        } else {
            Path::new("mosquitto")
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("mosquitto is installed: scripts/test does that"));
        for _ in 0..1000 {
            let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
            if ended.flatten().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // Where the port was taken meanwhile, that was somebody else, and ours ends.
                std::thread::sleep(Duration::from_millis(50));
                let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
                return ended.flatten().is_none();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// The id of its process.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address; over TLS by the name that its certificate is for.
    pub fn url(&self) -> BrokerUrl {
        let url = match self.tls {
            true => format!("mqtts://localhost:{}", self.port),
            false => format!("mqtt://127.0.0.1:{}", self.port),
        };
        url.parse().unwrap()
    }

    /// Publishes at QoS 1 with `mosquitto_pub`, as somebody else would; with `retain` the broker remembers it.
    pub fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "1",
            "-t",
            topic,
            "-m",
            payload,
        ]);
        if retain {
            command.arg("-r");
        }
        let told = command.status();
        assert!(
            told.expect("mosquitto_pub is installed: scripts/test does that")
                .success()
        );
    }

    /// SIGKILL: with all that it had in memory.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on its port.
    pub fn restart(&mut self) {
        self.kill();
        // Its port may be in use for a moment, by a connection of somebody else.
        let again = (0..50).any(|_| {
            let runs = self.try_run();
            if !runs {
                std::thread::sleep(Duration::from_millis(100));
            }
            runs
        });
        assert!(again, "mosquitto does not start again");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate authority, and what it has issued: `ca.pem`, `broker.pem`, `broker.key`, `client.pem`,
/// `client.key`, `expired.pem`, `expired.key`, and the unrelated `other-ca.pem`, each of them a file.
pub struct Certificates(TempDir);

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// Makes them.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = |name: &str| {
            let mut params = params(name, &[]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, other) = (authority("test authority"), authority("another authority"));
        write(folder.path(), "ca.pem", &ours.pem());
        write(folder.path(), "other-ca.pem", &other.pem());
        for (name, hosts, ended) in [
            ("broker", &["localhost", "::1"][..], false),
            ("client", &[], false),
            ("expired", &[], true),
        ] {
            let mut params = params(name, hosts);
            if ended {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ours).unwrap();
            write(folder.path(), &format!("{name}.pem"), &certificate.pem());
            write(folder.path(), &format!("{name}.key"), &key.serialize_pem());
        }
        Self(folder)
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a client needs that shows the certificate of this name.
    pub fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: Some(self.path("ca.pem")),
            certificate: Some(self.path(&format!("{name}.pem"))),
            key: Some(self.path(&format!("{name}.key"))),
            login: None,
        }
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}
