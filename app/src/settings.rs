//! What the service runs with, once it is known to make sense.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keywright_adapters::auth::Algorithm;
#[cfg(feature = "sandbox")]
use keywright_adapters::decorator::FaultPlan;
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::PostgresSettings;
#[cfg(feature = "mqtt")]
use keywright_mqtt::{BrokerUrl, TlsFiles};
#[cfg(feature = "sandbox")]
use keywright_sandbox::{Behaviour, Demo};

/// A setting, or a file that it names, cannot be used: the program ends with exit code 2, and starting it again changes
/// nothing. All other errors end it with code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnusableSettings(String);

impl UnusableSettings {
    /// The text of `why` names the setting or the file.
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Everything that can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// Where everything is kept that is not kept in a database.
    pub(crate) data: PathBuf,
    /// Where locks and API keys are kept.
    pub(crate) store: StoreChoice,
    pub(crate) log: LogFormat,
    pub(crate) log_level: tracing::Level,
    /// How long the protocol waits for what.
    pub(crate) protocol: keywright_domain::Settings,
    pub(crate) bounds: Bounds,
    /// Which pages of other origins may use the service from a browser.
    pub(crate) cors: CorsOrigins,
    /// How long requests are still taken after SIGTERM, while `/readyz` answers 503.
    pub(crate) drain_delay: Duration,
    /// Tokens of one's own issuer, besides the sandbox's or instead of them.
    pub(crate) tokens: Option<Tokens>,
    /// Where the shadows of locks are, and by which name.
    pub(crate) shadow: ShadowChoice,
    pub(crate) shadow_name: String,
    pub(crate) reports: Reports,
    /// How often all locks are audited, if they are.
    pub(crate) audit_every: Option<Duration>,
    /// The demo world, where it is wanted.
    #[cfg(feature = "sandbox")]
    pub(crate) sandbox: Option<SandboxSettings>,
}

/// Where locks and API keys are kept.
#[derive(Clone, Debug)]
pub(crate) enum StoreChoice {
    /// In files in the folder of data.
    File,
    /// Nowhere: with the process all locks are gone.
    Memory,
    /// In a PostgreSQL database.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresSettings>),
}

/// Where the shadows of locks are.
#[derive(Clone, Debug)]
pub(crate) enum ShadowChoice {
    /// In this process, in the folder of data or, where they are not kept, gone with it.
    InProcess { kept: bool },
    /// In AWS IoT, reached by the AWS SDK.
    #[cfg(feature = "aws")]
    Aws(Aws),
    /// Behind a broker: AWS IoT Core's, or one of one's own.
    #[cfg(feature = "mqtt")]
    Mqtt(Mqtt),
}

impl fmt::Display for ShadowChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess { kept: true } => f.write_str("in this process"),
            Self::InProcess { kept: false } => f.write_str("in this process, and gone with it"),
            #[cfg(feature = "aws")]
            Self::Aws(aws) => match &aws.endpoint {
                Some(endpoint) => write!(f, "in AWS IoT at {endpoint}"),
                None => f.write_str("in AWS IoT"),
            },
            #[cfg(feature = "mqtt")]
            Self::Mqtt(mqtt) => write!(f, "behind {}", mqtt.url),
        }
    }
}

/// How AWS is reached, where the standard chain does not say it.
#[cfg(feature = "aws")]
#[derive(Clone, Debug)]
pub(crate) struct Aws {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
}

/// How a broker is reached.
#[cfg(feature = "mqtt")]
#[derive(Clone, Debug)]
pub(crate) struct Mqtt {
    pub(crate) url: BrokerUrl,
    pub(crate) files: TlsFiles,
    pub(crate) client_id: String,
    /// Among how many shadows things are shared out.
    pub(crate) shards: usize,
    /// Whether requests keep to what AWS takes of one connection.
    pub(crate) aws_limits: bool,
}

/// How the reports of locks come; any of the ways may be open together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    /// From the shadows of this process.
    pub(crate) in_process: bool,
    /// Over a broker.
    #[cfg(feature = "mqtt")]
    pub(crate) mqtt: Option<Mqtt>,
    /// Somebody posts them who knows the secret in this file.
    pub(crate) http: Option<PathBuf>,
    /// By reading the shadows of open writes so often.
    pub(crate) poll: Option<Duration>,
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ways = Vec::new();
        if self.in_process {
            ways.push("from the shadows of this process".to_owned());
        }
        #[cfg(feature = "mqtt")]
        if let Some(mqtt) = &self.mqtt {
            ways.push(format!("over {}", mqtt.url));
        }
        if self.http.is_some() {
            ways.push("at POST /device-reports".to_owned());
        }
        if let Some(every) = self.poll {
            let every = humantime::format_duration(every);
            ways.push(format!("by looking every {every}"));
        }
        f.write_str(&ways.join(", "))
    }
}

#[cfg(feature = "mqtt")]
impl Settings {
    /// The brokers that are used.
    pub(crate) fn mqtt(&self) -> impl Iterator<Item = &Mqtt> {
        let shadow = match &self.shadow {
            ShadowChoice::Mqtt(mqtt) => Some(mqtt),
            _ => None,
        };
        shadow.into_iter().chain(&self.reports.mqtt)
    }
}

impl Settings {
    /// The same under other names at the broker, which would else take a server's connections away.
    pub(crate) fn beside_a_server(&self) -> Self {
        let mut settings = self.clone();
        #[cfg(feature = "mqtt")]
        {
            if let ShadowChoice::Mqtt(mqtt) = &mut settings.shadow {
                mqtt.client_id.push_str("-audit");
            }
            settings.reports.mqtt = None;
        }
        settings.reports.http = None;
        settings
    }
}

/// Which tokens are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) keys: TokenKeys,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) organization_claim: String,
}

/// Where the keys of tokens are.
#[derive(Clone, Debug)]
pub(crate) enum TokenKeys {
    /// In a file, which is followed.
    File(KeyFile),
    /// Where their issuer publishes them.
    #[cfg(feature = "jwks-url")]
    Published(JwksUrl),
}

/// A file of keys.
#[derive(Clone, Debug)]
pub(crate) enum KeyFile {
    Jwks(PathBuf),
    One(PathBuf, Algorithm),
}

impl KeyFile {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Jwks(path) | Self::One(path, _) => path,
        }
    }
}

/// How a set of keys is had from its issuer.
#[cfg(feature = "jwks-url")]
#[derive(Clone, Debug)]
pub(crate) struct JwksUrl {
    pub(crate) url: String,
    /// Who may have issued the server's certificate, instead of the system's authorities.
    pub(crate) ca: Option<PathBuf>,
    /// How often it is asked.
    pub(crate) every: Duration,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a client may ask for at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of a request's body.
    pub(crate) body: usize,
    /// Bytes of a request's line and headers.
    pub(crate) headers: usize,
    /// Until the first byte of a connection is there, and from a head's first byte to its end.
    pub(crate) header_time: Duration,
    /// How long a connection is kept on which no request is in progress.
    pub(crate) keep_alive: Duration,
    /// Until the body is there.
    pub(crate) body_time: Duration,
    /// Until a client has taken in what it is sent.
    pub(crate) write_time: Duration,
    /// Connections at once. For a further one the longest idle one is closed; if none is idle, it waits.
    pub(crate) connections: usize,
    /// Requests about locks at once.
    pub(crate) in_flight: usize,
    /// How many of those may be of one organization or user.
    pub(crate) share: usize,
    /// How many refused credentials of one source are answered as such at once.
    pub(crate) failures: u32,
    /// How long a request waits for one of those places.
    pub(crate) start_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: 4 * 1024,
            headers: 16 * 1024,
            header_time: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            body_time: Duration::from_secs(5),
            write_time: Duration::from_secs(10),
            connections: 4096,
            in_flight: 512,
            share: 256,
            failures: 200,
            start_time: Duration::from_millis(100),
        }
    }
}

/// The origins whose pages may call the service from a browser (the Fetch standard's CORS protocol).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CorsOrigins {
    /// Every origin (`*`).
    pub(crate) any: bool,
    /// Every origin on this machine's loopback, whatever its scheme and port.
    pub(crate) loopback: bool,
    /// Origins as browsers send them: `https://app.example`.
    pub(crate) listed: Vec<String>,
}

impl CorsOrigins {
    /// Whether pages of no other origin may call the service.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether pages of this origin may call the service.
    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.any
            || self.listed.iter().any(|listed| listed == origin)
            || self.loopback && is_loopback(origin)
    }
}

fn is_loopback(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<hyper::Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    uri.scheme().is_some()
        && (host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback()))
}

/// The demo world.
#[cfg(feature = "sandbox")]
#[derive(Clone, Debug)]
pub(crate) struct SandboxSettings {
    /// Whether virtual locks answer.
    pub(crate) virtual_locks: bool,
    /// Locks besides the first two.
    pub(crate) more_locks: u64,
    /// How the locks behave.
    pub(crate) behaviours: Behaviours,
    /// What goes wrong between the service and its store and shadows.
    pub(crate) faults: FaultPlan,
}

#[cfg(feature = "sandbox")]
impl SandboxSettings {
    pub(crate) const fn demo(&self) -> Demo {
        Demo {
            more_locks: self.more_locks,
        }
    }
}

/// How virtual locks behave: all of them, unless one is named.
#[cfg(feature = "sandbox")]
#[derive(Clone, Debug)]
pub(crate) struct Behaviours {
    all: Behaviour,
    single: Vec<(u64, Behaviour)>,
}

#[cfg(feature = "sandbox")]
impl Behaviours {
    /// What is said last counts.
    ///
    /// # Errors
    /// A lock is named that is not there.
    pub(crate) fn new(said: Vec<(Option<u64>, Behaviour)>, demo: Demo) -> Result<Self, String> {
        let named = said.iter().filter_map(|(lock, _)| *lock);
        if let Some(lock) = { named }.find(|lock| demo.locks().all(|known| known.id != *lock)) {
            return Err(format!(
                "--behaviour names lock {lock}, which is not in the sandbox; see --locks"
            ));
        }
        let for_all = said.iter().rfind(|(lock, _)| lock.is_none());
        let all = for_all.map(|(_, behaviour)| behaviour.clone());
        let single = said.into_iter().filter_map(|(lock, b)| Some((lock?, b)));
        Ok(Self {
            all: all.unwrap_or_default(),
            single: single.collect(),
        })
    }

    /// How a lock behaves.
    pub(crate) fn of(&self, lock: u64) -> &Behaviour {
        let own = self.single.iter().rfind(|(id, _)| *id == lock);
        own.map_or(&self.all, |(_, behaviour)| behaviour)
    }

    /// How those behave that nobody named.
    pub(crate) const fn of_others(&self) -> &Behaviour {
        &self.all
    }
}
