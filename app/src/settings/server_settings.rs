//! The settings of the service, after their values have been checked against each other.

#[cfg(feature = "sandbox")]
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "sandbox")]
use anyhow::ensure;
use keywright_adapters::auth::{Algorithm, JwtSettings};
#[cfg(feature = "sandbox")]
use keywright_adapters::decorator::FaultPlan;
#[cfg(feature = "postgres")]
use keywright_adapters::postgres::PostgresSettings;
use keywright_adapters::webhooks::EnvelopeSettings;
use keywright_domain::policy::{AddressRules, WebhookLimits};
#[cfg(feature = "mqtt")]
use keywright_mqtt::{BrokerUrl, TlsFiles};
#[cfg(feature = "sandbox")]
use keywright_sandbox::{Behaviour, Demo};

#[cfg(feature = "aws")]
use crate::settings::aws_options::Aws;

/// All settings of the server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The address at which HTTP is served.
    pub(crate) listen: SocketAddr,
    /// Where the operators' page is served.
    pub(crate) admin_listen: AdminListen,
    /// The data folder: everything that is not in a database.
    pub(crate) data: PathBuf,
    pub(crate) store: StoreChoice,
    pub(crate) log: LogFormat,
    pub(crate) log_level: tracing::Level,
    /// Time limits and other limits of the write protocol.
    pub(crate) protocol: keywright_domain::Settings,
    pub(crate) http_limits: HttpLimits,
    pub(crate) cors: CorsOrigins,
    /// How long requests are still accepted after SIGTERM, while `/readyz` answers 503.
    pub(crate) drain_delay: Duration,
    /// Which tokens are accepted. `None`: those of the sandbox, if it is on.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) shadow: ShadowChoice,
    /// The named shadow of each thing to which keys are written.
    pub(crate) shadow_name: String,
    pub(crate) reports: Reports,
    /// How often the server audits all locks. `None`: never.
    pub(crate) audit_every: Option<Duration>,
    /// `None`: webhooks are off.
    pub(crate) webhooks: Option<WebhookSettings>,
    /// `None`: the sandbox is off.
    #[cfg(feature = "sandbox")]
    pub(crate) sandbox: Option<SandboxSettings>,
}

/// Where the operators' page is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminListen {
    /// Nowhere.
    Off,
    /// At the address of the API.
    WithApi,
    /// At an address of its own.
    At(SocketAddr),
}

/// How webhooks are stored and delivered.
#[cfg_attr(
    not(feature = "webhooks"),
    expect(dead_code, reason = "only the client of the feature reads all of them")
)]
#[derive(Clone, Debug)]
pub(crate) struct WebhookSettings {
    /// The file with the key that encrypts their secrets. `None`: one in the data folder, which is created.
    pub(crate) key: Option<PathBuf>,
    /// A file of certificate authorities that replaces those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// Where they may lead.
    pub(crate) rules: AddressRules,
    /// The members of the envelope that the operator chooses.
    pub(crate) envelope: EnvelopeSettings,
    pub(crate) limits: WebhookLimits,
}

/// Where locks and API keys are stored.
#[derive(Clone, Debug)]
pub(crate) enum StoreChoice {
    /// In files in the data folder.
    File,
    /// In memory. All locks are lost when the process ends.
    Memory,
    /// In a PostgreSQL database.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresSettings>),
}

impl StoreChoice {
    /// What clients are answered until the store is open.
    pub(crate) const fn startup_message(&self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "The service is starting; its database has not answered yet",
            Self::File | Self::Memory => "The service is starting",
        }
    }
}

/// Where the shadows of locks are.
#[derive(Clone, Debug)]
pub(crate) enum ShadowChoice {
    /// In this process: kept in the data folder, or lost when the process ends.
    InProcess { kept: bool },
    /// In AWS IoT, through the AWS SDK.
    #[cfg(feature = "aws")]
    Aws(Aws),
    /// On an MQTT broker: AWS IoT Core, or another one with a shadow service.
    #[cfg(feature = "mqtt")]
    Mqtt(Mqtt),
}

impl fmt::Display for ShadowChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess { kept: true } => f.write_str("in this process"),
            Self::InProcess { kept: false } => {
                f.write_str("in this process, and lost when it ends")
            }
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

/// How a broker is reached.
#[cfg(feature = "mqtt")]
#[derive(Clone, Debug)]
pub(crate) struct Mqtt {
    pub(crate) url: BrokerUrl,
    pub(crate) files: TlsFiles,
    pub(crate) client_id: String,
    /// The number of shadows among which things are distributed.
    pub(crate) shards: usize,
    /// Whether requests stay within the limits of AWS IoT for one connection.
    pub(crate) aws_limits: bool,
}

/// How the reports of locks arrive. Several ways may be open at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    /// From the shadows in this process.
    pub(crate) in_process: bool,
    /// Over a broker.
    #[cfg(feature = "mqtt")]
    pub(crate) mqtt: Option<Mqtt>,
    /// By HTTP requests with the secret in this file.
    pub(crate) http: Option<PathBuf>,
    /// By reading the shadows of open writes at this interval.
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
            ways.push(format!("by reading the shadows every {every}"));
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
    pub(crate) const fn is_sandbox(&self) -> bool {
        #[cfg(feature = "sandbox")]
        let is_sandbox = self.sandbox.is_some();
        #[cfg(not(feature = "sandbox"))]
        let is_sandbox = false;
        is_sandbox
    }

    /// These settings for a command that works beside a running server: with another client id, because a broker closes the
    /// server's connection when a second client uses its id, and without reports, which belong to the server.
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
    pub(crate) jwt: JwtSettings,
}

/// Where the keys that verify tokens come from.
#[derive(Clone, Debug)]
pub(crate) enum TokenKeys {
    /// A file, which is read again when it changes.
    File(KeyFile),
    /// A URL at which the issuer publishes them.
    #[cfg(feature = "jwks-url")]
    Published(JwksUrl),
}

/// A file of token keys.
#[derive(Clone, Debug)]
pub(crate) enum KeyFile {
    /// A JSON Web Key Set.
    Jwks(PathBuf),
    /// A public key in PEM or a shared secret, for this algorithm.
    Single(PathBuf, Algorithm),
}

impl KeyFile {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Jwks(path) | Self::Single(path, _) => path,
        }
    }
}

/// The URL of a JSON Web Key Set.
#[cfg(feature = "jwks-url")]
#[derive(Clone, Debug)]
pub(crate) struct JwksUrl {
    pub(crate) url: String,
    /// A file of certificate authorities that replaces those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// How often the key set is fetched.
    pub(crate) every: Duration,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Limits on connections and requests of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HttpLimits {
    /// Bytes of a request's body.
    pub(crate) max_body: usize,
    /// Bytes of a request's line and headers.
    pub(crate) max_head: usize,
    /// How long the first byte of a connection may take, and a request head from its first byte to its end.
    pub(crate) head_timeout: Duration,
    /// How long a connection without a request in progress is kept.
    pub(crate) keep_alive: Duration,
    /// How long a request's body may take.
    pub(crate) body_timeout: Duration,
    /// How long a client may take to read what it is sent.
    pub(crate) send_timeout: Duration,
    /// Connections at once. A further connection replaces the one that has been idle longest; if none is idle, it waits.
    pub(crate) max_connections: usize,
    /// Requests about locks in progress at once.
    pub(crate) max_in_flight: usize,
    /// How many of those may belong to one organization or user.
    pub(crate) max_in_flight_each: usize,
    /// Streams of events at once.
    pub(crate) max_streams: usize,
    /// How many of those may belong to one organization or user.
    pub(crate) max_streams_each: usize,
    /// How many refused credentials from one address are answered 401 in a burst. Further ones are answered 429.
    pub(crate) max_failures: u32,
    /// How long a request waits for a permit out of `max_in_flight`.
    pub(crate) permit_timeout: Duration,
}

impl HttpLimits {
    /// The default of `max_streams`: half of all connections.
    pub(crate) const fn default_max_streams(connections: usize) -> usize {
        connections.div_ceil(2)
    }

    /// The default of `max_in_flight_each`: half of all requests in progress.
    pub(crate) const fn default_max_in_flight_each(in_flight: usize) -> usize {
        in_flight.div_ceil(2)
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        let (in_flight, connections) = (512, 4096);
        Self {
            max_body: 4 * 1024,
            max_head: 16 * 1024,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            body_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(10),
            max_connections: connections,
            max_in_flight: in_flight,
            max_in_flight_each: Self::default_max_in_flight_each(in_flight),
            max_streams: Self::default_max_streams(connections),
            max_streams_each: 64,
            max_failures: 200,
            permit_timeout: Duration::from_millis(100),
        }
    }
}

/// The origins whose pages may call the service from a browser (CORS protocol of the Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CorsOrigins {
    /// Every origin (`*`).
    pub(crate) any: bool,
    /// Every origin on the loopback of the browser's machine, with any scheme and port.
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
    let address = address.parse::<IpAddr>();
    uri.scheme().is_some()
        && (host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback()))
}

/// The settings of the sandbox.
#[cfg(feature = "sandbox")]
#[derive(Clone, Debug)]
pub(crate) struct SandboxSettings {
    /// Whether virtual locks execute the writes.
    pub(crate) virtual_locks: bool,
    pub(crate) demo: Demo,
    pub(crate) behaviours: Behaviours,
    /// Faults that are injected between the service and its store and shadows.
    pub(crate) faults: FaultPlan,
}

/// One value of `--behaviour`: a lock, or `None` for all locks, and how it behaves.
#[cfg(feature = "sandbox")]
pub(crate) type BehaviourOption = (Option<u64>, Behaviour);

/// How virtual locks behave: single ones, and with the key `None` all others.
#[cfg(feature = "sandbox")]
#[derive(Clone, Debug)]
pub(crate) struct Behaviours(HashMap<Option<u64>, Behaviour>);

#[cfg(feature = "sandbox")]
impl Behaviours {
    /// Of several options for the same lock, or for all locks, the last one counts.
    ///
    /// # Errors
    /// An option names a lock that does not exist.
    pub(crate) fn new(options: Vec<BehaviourOption>, demo: Demo) -> anyhow::Result<Self> {
        let named = options.iter().filter_map(|(lock, _)| *lock);
        for lock in named {
            ensure!(
                demo.locks().any(|known| known.id == lock),
                "--behaviour names lock {lock}, which is not in the sandbox; see --locks"
            );
        }
        let default = [(None, Behaviour::default())];
        Ok(Self(default.into_iter().chain(options).collect()))
    }

    /// The behaviour of a lock. `None`: of locks that no option names.
    pub(crate) fn of(&self, lock: Option<u64>) -> &Behaviour {
        self.0.get(&lock).unwrap_or(&self.0[&None])
    }
}
