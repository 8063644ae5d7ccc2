//! The settings of the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keywright_adapters::auth::Algorithm;
use keywright_domain::policy::Limits;

#[cfg(feature = "sandbox")]
use super::sandbox::SandboxArgs;
use super::shadow_access::ShadowAccess;
use super::store::StoreArgs;
use super::values::{LogLines, Switch, address, algorithm, claim, cors_origins, positive, time};
use crate::settings::{
    Bounds, CorsOrigins, KeyFile, Settings, ShadowChoice, StoreChoice, TokenKeys, Tokens,
};

/// Where everything is kept, unless said otherwise.
pub(super) const DATA: &str = "./keywright-data";

/// Whether there is a sandbox, unless said otherwise.
const SANDBOX: &str = if cfg!(feature = "sandbox") {
    "on"
} else {
    "off"
};

/// The settings of the server. Their long names are the keys of `keywright.toml`.
#[derive(Args)]
pub(crate) struct Serve {
    /// The file with settings [default: keywright.toml, where there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for programs: what `check-config` says.
    #[arg(long, hide = true)]
    pub(super) json: bool,
    /// Where to serve HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", value_parser = address)]
    listen: SocketAddr,
    /// Where everything is kept. Made where it is missing.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    log: LogLines,

    /// The keys that tokens are signed with: a JSON Web Key Set in a file, which is read again when it changes, or at an
    /// https URL, which is asked again and again, and at once for a token of an unknown key.
    #[arg(long, value_name = "FILE|URL", help_heading = "Credentials")]
    jwks: Option<String>,
    /// How often that URL is asked: a key that is taken off it is refused within this time.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time, help_heading = "Credentials")]
    jwks_every: Duration,
    /// Who may have issued the certificate of that URL, in PEM [default: whom the system trusts].
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    jwks_ca: Option<PathBuf>,
    /// The public key, in PEM, or the shared secret that tokens are signed with.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Credentials",
        conflicts_with = "jwks"
    )]
    token_key: Option<PathBuf>,
    /// What that key is for: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA (Ed25519).
    #[arg(long, value_name = "NAME", default_value = "ES256", value_parser = algorithm, help_heading = "Credentials")]
    token_algorithm: Algorithm,
    /// Who must have issued tokens (`iss`).
    #[arg(long, value_name = "TEXT", help_heading = "Credentials")]
    token_issuer: Option<String>,
    /// Whom tokens must be for (`aud`).
    #[arg(long, value_name = "TEXT", help_heading = "Credentials")]
    token_audience: Option<String>,
    /// The claim that makes a token an organization's.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "org", value_parser = claim,
        help_heading = "Credentials"
    )]
    token_organization_claim: String,

    #[command(flatten)]
    path: ShadowAccess,

    /// Whether the demo world is there: locks 123 and 124, virtual locks, and credentials in sandbox.env. Without
    /// it, tokens need a key of yours, and locks are added with `keywright lock`. A build without the feature sandbox
    /// knows off only.
    #[arg(long, value_enum, default_value = SANDBOX, help_heading = "Sandbox")]
    sandbox: Switch,
    #[cfg(feature = "sandbox")]
    #[command(flatten)]
    of_sandbox: SandboxArgs,

    /// The time for a whole request.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, help_heading = "Limits")]
    request: Duration,
    /// The time that a request waits for the lock's turn.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time, help_heading = "Limits")]
    turn: Duration,
    /// The time for one call of a shadow.
    #[arg(long, value_name = "TIME", default_value = "2500ms", value_parser = time, help_heading = "Limits")]
    shadow_call: Duration,
    /// How long a process may act on a write before others take it over.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time, help_heading = "Limits")]
    lease: Duration,
    /// By how much --lease must be longer than --request and --shadow-call together, for clocks that run apart and a store
    /// that is slow to answer.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, help_heading = "Limits")]
    lease_margin: Duration,
    /// How long a lock may take to settle a write.
    #[arg(long, value_name = "TIME", default_value = "48h", value_parser = time, help_heading = "Limits")]
    time_to_live: Duration,
    /// From when on a write counts as unconfirmed.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, help_heading = "Limits")]
    confirm_within: Duration,
    /// How long a recorded result stays on the shadow at most.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, help_heading = "Limits")]
    clear_within: Duration,
    /// How long the answer to a request with an Idempotency-Key is kept.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time, help_heading = "Limits")]
    keep_answers: Duration,
    /// How long a write that is over can be read; its events stay for ever.
    #[arg(long, value_name = "TIME", default_value = "90days", value_parser = time, help_heading = "Limits")]
    keep_writes: Duration,
    /// How often the shadows of all locks are compared with their writes, as `keywright audit` does; what differs is
    /// logged and counted [default: never].
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Limits")]
    audit_every: Option<Duration>,
    /// How many writes of a lock may be open at once.
    #[arg(long, value_name = "N", default_value = "16", help_heading = "Limits")]
    max_open_writes: usize,
    /// How many connections are served at once. For a further one the connection that has been idle for longest is
    /// closed; if none is idle, it waits.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = positive, help_heading = "Limits")]
    max_connections: usize,
    /// How long an idle connection is kept. A load balancer in front must close its idle connections sooner.
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = time, help_heading = "Limits")]
    keep_alive: Duration,
    /// How long requests are still taken after SIGTERM, while GET /readyz answers 503 so that balancers send new ones
    /// elsewhere. SIGINT (Ctrl-C) does not wait.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time, help_heading = "Limits")]
    drain_delay: Duration,
    /// The origins whose pages may call the service from a browser, separated by commas: https://app.example, or *
    /// for every one, loopback for those on this machine, none [default: loopback with the sandbox, else none].
    #[arg(long, value_name = "ORIGINS", value_parser = cors_origins)]
    cors_origins: Option<CorsOrigins>,
    /// How many requests about locks are in progress at once; further ones are answered 503 when none of these ends
    /// within 100 ms.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive, help_heading = "Limits")]
    max_in_flight: usize,
    /// How many of those may be of one organization or user; further ones are answered 429 [default: half of them].
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Limits")]
    max_in_flight_each: Option<usize>,
    /// How many credentials from one address may be wrong within five seconds; further ones are answered 429. Good ones
    /// are let in all the same.
    #[arg(long, value_name = "N", default_value = "200", help_heading = "Limits")]
    max_failures: u32,
}

impl Serve {
    /// # Errors
    /// They contradict each other.
    pub(super) fn settings(self) -> Result<Settings, String> {
        let protocol = keywright_domain::Settings {
            limits: Limits {
                max_open_writes: self.max_open_writes,
                time_to_live: self.time_to_live,
                confirm_within: self.confirm_within,
                clear_within: self.clear_within,
                idempotency_retention: self.keep_answers,
                write_retention: self.keep_writes,
                ..Limits::default()
            },
            request_timeout: self.request,
            queue_timeout: self.turn,
            shadow_timeout: self.shadow_call,
            lease: self.lease,
            lease_margin: self.lease_margin,
            ..keywright_domain::Settings::default()
        };
        protocol.check().map_err(|e| e.to_string())?;
        if self.keep_alive.is_zero() {
            return Err("--keep-alive must be more than zero".into());
        }
        if self.audit_every.is_some_and(|every| every.is_zero()) {
            return Err("--audit-every must be more than zero".into());
        }
        let tokens = self.tokens()?;
        let sandbox = self.sandbox.is_on();
        let shadow_name = self.path.shadow_name.clone();
        let (shadow, reports) = self.path.choose()?;
        let here = matches!(shadow, ShadowChoice::InProcess { .. });
        #[cfg(feature = "sandbox")]
        let of_sandbox = self.of_sandbox.choose(sandbox, here)?;
        #[cfg(not(feature = "sandbox"))]
        if sandbox {
            return Err("--sandbox on: this program was built without the feature sandbox".into());
        }
        let store = self.store.choose()?;
        if matches!(store, StoreChoice::Memory)
            && matches!(shadow, ShadowChoice::InProcess { kept: true })
        {
            return Err(
                "--store memory forgets what the shadows would keep: set --shadow volatile".into(),
            );
        }
        if !sandbox && matches!(store, StoreChoice::Memory) {
            return Err(
                "--store memory holds the locks of the sandbox, and --sandbox is off".into(),
            );
        }
        if here && !sandbox && !matches!(store, StoreChoice::File) {
            return Err(
                "--store names a database that replicas share, and the shadows in this process are no other \
                 replica's: set --shadow to aws or mqtt"
                    .into(),
            );
        }
        if sandbox && tokens.is_some() {
            return Err("the sandbox has tokens of its own; for yours, set --sandbox off".into());
        }
        Ok(Settings {
            tokens,
            listen: self.listen,
            data: self.data,
            store,
            log: self.log.log,
            log_level: self.log.log_level,
            protocol,
            bounds: Bounds {
                connections: self.max_connections,
                keep_alive: self.keep_alive,
                in_flight: self.max_in_flight,
                failures: self.max_failures,
                share: self
                    .max_in_flight_each
                    .unwrap_or(self.max_in_flight.div_ceil(2)),
                ..Bounds::default()
            },
            cors: self.cors_origins.unwrap_or(CorsOrigins {
                loopback: sandbox,
                ..CorsOrigins::default()
            }),
            drain_delay: self.drain_delay,
            shadow,
            shadow_name,
            reports,
            audit_every: self.audit_every,
            #[cfg(feature = "sandbox")]
            sandbox: of_sandbox,
        })
    }
}

impl Serve {
    #[cfg(feature = "jwks-url")]
    fn published_keys(&self, url: &str) -> Result<TokenKeys, String> {
        if self.jwks_every.is_zero() {
            return Err("--jwks-every must be more than zero".into());
        }
        Ok(TokenKeys::Published(crate::settings::JwksUrl {
            url: url.to_owned(),
            ca: self.jwks_ca.clone(),
            every: self.jwks_every,
        }))
    }

    #[cfg(not(feature = "jwks-url"))]
    fn published_keys(&self, _: &str) -> Result<TokenKeys, String> {
        Err(
            "--jwks: this program reads files only; it was built without the feature jwks-url"
                .into(),
        )
    }

    /// Where the keys for tokens are, if tokens of one's own are accepted.
    fn tokens(&self) -> Result<Option<Tokens>, String> {
        let keys = match (&self.jwks, &self.token_key) {
            (Some(url), _) if url.contains("://") => self.published_keys(url)?,
            _ if self.jwks_ca.is_some() => {
                return Err("--jwks-ca is about a URL in --jwks".into());
            }
            (Some(path), _) => TokenKeys::File(KeyFile::Jwks(path.into())),
            (None, Some(path)) => TokenKeys::File(KeyFile::One(path.clone(), self.token_algorithm)),
            (None, None) if self.token_issuer.is_some() || self.token_audience.is_some() => {
                return Err(
                    "--token-issuer and --token-audience need --jwks or --token-key".into(),
                );
            }
            (None, None) => return Ok(None),
        };
        match (&self.token_issuer, &self.token_audience) {
            (Some(issuer), Some(audience)) => Ok(Some(Tokens {
                keys,
                issuer: issuer.clone(),
                audience: audience.clone(),
                organization_claim: self.token_organization_claim.clone(),
            })),
            _ => Err(
                "with --jwks or --token-key, say --token-issuer and --token-audience, too".into(),
            ),
        }
    }
}
