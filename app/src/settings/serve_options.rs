//! Options of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;

use super::credential_options::CredentialArgs;
use super::limit_options::LimitArgs;
use super::log_options::LogArgs;
#[cfg(feature = "sandbox")]
use super::sandbox_options::SandboxArgs;
use super::shadow_options::ShadowArgs;
use super::store_options::StoreArgs;
use super::values::{Switch, address, admin_listen, cors_origins};
use super::webhook_options::WebhookArgs;
use crate::settings::{AdminListen, CorsOrigins, Settings, ShadowChoice, StoreChoice};

/// The default data folder.
pub(super) const DATA: &str = "./keywright-data";

/// The default address of the server.
pub(crate) const LISTEN: &str = "127.0.0.1:8787";

/// Whether the sandbox is on by default.
const SANDBOX: &str = if cfg!(feature = "sandbox") {
    "on"
} else {
    "off"
};

/// All options of the server. Their long names are the keys of `keywright.toml`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The settings file [default: keywright.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON. Only `check-config` and `audit` have this option.
    #[arg(long, hide = true)]
    pub(crate) json: bool,
    /// The address at which HTTP is served. Port 0 takes a free port.
    #[arg(long, value_name = "ADDR", default_value = LISTEN, value_parser = address)]
    listen: SocketAddr,
    /// Where the operators' page /admin is served: an address of its own, such as 127.0.0.1:8788, `api` for the address of the
    /// API, or `off` [default: api with the sandbox, off without].
    #[arg(long, value_name = "ADDR", value_parser = admin_listen)]
    admin_listen: Option<AdminListen>,
    /// The data folder. It is created if it is missing.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// The origins whose pages may call the service from a browser, separated by commas, such as https://app.example;
    /// or `*` for all origins, `loopback` for those on the browser's own machine, `none` for no origin [default: loopback with
    /// the sandbox, none without].
    #[arg(long, value_name = "ORIGINS", value_parser = cors_origins)]
    cors_origins: Option<CorsOrigins>,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    shadows: ShadowArgs,
    /// Whether the sandbox is on: demo locks 123 and 124, virtual locks, and credentials in sandbox.env. Without it, tokens
    /// need keys (--jwks or --token-key), and locks are added with `keywright lock`. A program that was built without the
    /// feature sandbox accepts only off.
    #[arg(long, value_enum, default_value = SANDBOX, help_heading = "Sandbox")]
    sandbox: Switch,
    #[cfg(feature = "sandbox")]
    #[command(flatten)]
    sandbox_args: SandboxArgs,
    #[command(flatten)]
    webhooks: WebhookArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

impl ServeArgs {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// They contradict each other; the text names them.
    pub(crate) fn settings(self) -> anyhow::Result<Settings> {
        let protocol = self.limits.protocol()?;
        let http_limits = self.limits.http_limits()?;
        let audit_every = self.limits.audit_every()?;
        let tokens = self.credentials.tokens()?;
        let sandbox = self.sandbox.is_on();
        let shadow_name = self.shadows.shadow_name.clone();
        let (shadow, reports) = self.shadows.choose()?;
        let in_process = matches!(shadow, ShadowChoice::InProcess { .. });
        #[cfg(feature = "sandbox")]
        let sandbox_settings = self.sandbox_args.choose(sandbox, in_process)?;
        #[cfg(not(feature = "sandbox"))]
        ensure!(
            !sandbox,
            "--sandbox on: this program was built without the feature sandbox"
        );
        let webhooks = self.webhooks.choose(sandbox)?;
        let store = self.store.choose()?;
        let in_memory = matches!(store, StoreChoice::Memory);
        if in_memory && matches!(shadow, ShadowChoice::InProcess { kept: true }) {
            bail!("--store memory loses what the shadows would keep: set --shadow volatile");
        }
        if !sandbox && in_memory {
            bail!("--store memory holds only the locks of the sandbox, and --sandbox is off");
        }
        if in_process && !sandbox && !matches!(store, StoreChoice::File) {
            bail!(
                "--store names a database for several replicas, which cannot share the shadows in this process: \
                 set --shadow to aws or mqtt"
            );
        }
        ensure!(
            !sandbox || tokens.is_none(),
            "the sandbox has tokens of its own; to accept those of your issuer, set --sandbox off"
        );
        Ok(Settings {
            tokens,
            listen: self.listen,
            admin_listen: self.admin_listen.unwrap_or(match sandbox {
                true => AdminListen::WithApi,
                false => AdminListen::Off,
            }),
            data: self.data,
            store,
            log: self.log.log,
            log_level: self.log.log_level,
            protocol,
            http_limits,
            cors: self.cors_origins.unwrap_or(CorsOrigins {
                loopback: sandbox,
                ..CorsOrigins::default()
            }),
            drain_delay: self.limits.drain_delay(),
            shadow,
            shadow_name,
            reports,
            audit_every,
            webhooks,
            #[cfg(feature = "sandbox")]
            sandbox: sandbox_settings,
        })
    }
}
