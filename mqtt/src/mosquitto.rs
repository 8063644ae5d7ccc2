//! A mosquitto process for one test, on a free port of the loopback interface, and TLS certificates for it.
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

/// The settings that docs/shadows.md recommends, without the listener.
const RECOMMENDED_SETTINGS: &str = "allow_anonymous true
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
    /// Starts a broker without TLS.
    pub fn start() -> Self {
        Self::with(RECOMMENDED_SETTINGS, None)
    }

    /// Starts a broker without TLS, with mosquitto's default settings.
    pub fn start_with_defaults() -> Self {
        Self::with("allow_anonymous true\nuser root\nlog_dest none\n", None)
    }

    /// Starts a broker that requires a client certificate (mutual TLS).
    pub fn start_tls(certificates: &Certificates) -> Self {
        Self::with(RECOMMENDED_SETTINGS, Some(certificates))
    }

    fn with(settings: &str, certificates: Option<&Certificates>) -> Self {
        // Another process may take the free port before the broker does.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let folder = TempDir::new().unwrap();
            let mut config = format!("listener {port} 127.0.0.1\n{settings}");
            if let Some(files) = certificates {
                let path = |name: &str| files.path(name).display().to_string();
                config.push_str(&format!(
                    "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                    path("ca.pem"),
                    path("broker.pem"),
                    path("broker.key"),
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
        // Debian installs it in a folder that is only in root's PATH.
        let sbin_path = Path::new("/usr/sbin/mosquitto");
        let program = match sbin_path.exists() {
            true => sbin_path,
            false => Path::new("mosquitto"),
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("mosquitto is installed (scripts/test installs it)"));
        for _ in 0..1000 {
            let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
            if ended.flatten().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // If another process has taken the port, it has answered, and our broker exits.
                std::thread::sleep(Duration::from_millis(50));
                let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
                return ended.flatten().is_none();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// The process id.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address; with TLS it has the host name of the broker's certificate.
    pub fn url(&self) -> BrokerUrl {
        let url = match self.tls {
            true => format!("mqtts://localhost:{}", self.port),
            false => format!("mqtt://127.0.0.1:{}", self.port),
        };
        url.parse().unwrap()
    }

    /// Publishes at QoS 1 with `mosquitto_pub`; with `retain` the broker stores the message.
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
        let status = command.status();
        assert!(
            status
                .expect("mosquitto_pub is installed (scripts/test installs it)")
                .success()
        );
    }

    /// Kills the process (SIGKILL), so that it loses its memory.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the broker again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        // A connection of another process may use the port for a moment.
        let restarted = (0..50).any(|_| {
            let running = self.try_run();
            if !running {
                std::thread::sleep(Duration::from_millis(100));
            }
            running
        });
        assert!(restarted, "mosquitto does not start again");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Files of a certificate authority and of the certificates that it has issued: `ca.pem`, `broker.pem`, `broker.key`,
/// `client.pem`, `client.key`, `expired.pem`, `expired.key`, and the unrelated `other-ca.pem`.
pub struct Certificates(TempDir);

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// Generates all keys and certificates.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = |name: &str| {
            let mut params = params(name, &[]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (trusted, other) = (authority("test authority"), authority("another authority"));
        write(folder.path(), "ca.pem", &trusted.pem());
        write(folder.path(), "other-ca.pem", &other.pem());
        for (name, hosts, expired) in [
            ("broker", &["localhost", "::1"][..], false),
            ("client", &[], false),
            ("expired", &[], true),
        ] {
            let mut params = params(name, hosts);
            if expired {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &trusted).unwrap();
            write(folder.path(), &format!("{name}.pem"), &certificate.pem());
            write(folder.path(), &format!("{name}.key"), &key.serialize_pem());
        }
        Self(folder)
    }

    /// The path of one of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The files of a client with the certificate of this name.
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
