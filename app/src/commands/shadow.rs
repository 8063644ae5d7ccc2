//! `keywright shadow`: a shadow service for other programs, over REST and on a broker.

use std::any::Any;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use keywright_mqtt::{Broker, BrokerUrl, TlsFiles};
use keywright_shadow::mqtt::{Disorder, MqttFrontend, Options, parse_disorder};
use keywright_shadow::{ShadowService, rest};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::runtime::block_on_all_cores;
use crate::bootstrap::data_folder;
use crate::bootstrap::shadow_access::open_shadows;
use crate::error::UnusableSettings;
use crate::log_output;
use crate::settings::log_options::LogArgs;
use crate::settings::values::address;
use crate::signals::Signals;

#[derive(Args)]
pub(crate) struct ShadowCommand {
    #[command(flatten)]
    fronts: FrontArgs,
    /// The folder of the shadows. It is created if it is missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Where shadows are served.
#[derive(Args)]
pub(super) struct FrontArgs {
    /// Serve REST at this address, as the data endpoint of AWS IoT does. Port 0 takes a free port. Signatures are not checked:
    /// all clients that reach the address can read and change every shadow.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    rest: Option<SocketAddr>,
    /// Serve on this broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS. A broker has one shadow service.
    #[arg(long, value_name = "URL")]
    broker: Option<BrokerUrl>,
    /// The file with the certificate authorities of the broker, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_ca: Option<PathBuf>,
    /// The file with the client certificate for the broker, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["broker_key", "broker"])]
    broker_certificate: Option<PathBuf>,
    /// The file with the private key of the client certificate, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["broker_certificate", "broker"])]
    broker_key: Option<PathBuf>,
    /// The user name at the broker.
    #[arg(long, value_name = "NAME", requires_all = ["broker_password_file", "broker"])]
    broker_user: Option<String>,
    /// The file with the password of that user.
    #[arg(long, value_name = "FILE", requires_all = ["broker_user", "broker"])]
    broker_password_file: Option<PathBuf>,
    /// Disturb messages on the broker, to test locks and backends: shuffle=20,repeat=0.3,lose=0.1,seed=7 delays each message
    /// by up to 20 ms, repeats 30 %, and loses 10 % of the answers.
    #[arg(long, value_name = "LIST", value_parser = parse_disorder, requires = "broker")]
    disorder: Option<Disorder>,
    /// The highest number of requests a second for one thing; further ones are refused with 429. AWS IoT accepts 20
    /// [default: no limit].
    #[arg(long, value_name = "N")]
    requests_a_second: Option<u32>,
    /// Refuse every request with this status, to see how a client handles it: 400, 401, 403, 404, 405, 409, 413, 415, 429, 500
    /// or 503.
    #[arg(long, value_name = "STATUS", value_parser = refusal)]
    refuse_all: Option<u16>,
    #[command(flatten)]
    log: LogArgs,
}

fn refusal(text: &str) -> Result<u16, &'static str> {
    let known = [400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 503];
    let status = text.parse().ok().filter(|status| known.contains(status));
    status.ok_or("it is 400, 401, 403, 404, 405, 409, 413, 415, 429, 500 or 503")
}

/// # Errors
/// The options are invalid, or the service fails.
pub(crate) fn run(command: ShadowCommand) -> anyhow::Result<()> {
    serve(command.fronts, &command.data, None)
}

/// Starts virtual locks on the shadows in this process. They end when the returned value is dropped.
pub(super) type StartLocks =
    Box<dyn FnOnce(&Path, &ShadowService, Option<Broker>) -> anyhow::Result<Box<dyn Any>>>;

/// Serves shadows until a signal comes. `locks` starts virtual locks on them.
///
/// # Errors
/// The options are invalid, or the service fails.
pub(super) fn serve(
    fronts: FrontArgs,
    data: &Path,
    locks: Option<StartLocks>,
) -> anyhow::Result<()> {
    let broker = fronts.broker()?;
    // It outlives the runtime, whose tasks log until they end.
    let _logging = log_output::start(fronts.log.log, fronts.log.log_level);
    block_on_all_cores(serve_until_signal(fronts, broker, data, locks))
}

async fn serve_until_signal(
    fronts: FrontArgs,
    broker: Option<Broker>,
    data: &Path,
    locks: Option<StartLocks>,
) -> anyhow::Result<()> {
    data_folder::create(data)?;
    let mut signals = Signals::new()?;
    let service = open_shadows(data).await?;
    service.limit_requests(fronts.requests_a_second);
    service.refuse_all(fronts.refuse_all);
    let mut banner = String::from(match locks {
        Some(_) => "Keywright's shadows and virtual locks are served",
        None => "Keywright's shadows are served",
    });

    let stop = CancellationToken::new();
    let mut http = None;
    if let Some(address) = fronts.rest {
        let listener = TcpListener::bind(address).await;
        if !address.ip().is_loopback() {
            warn!(%address, "all clients that reach this address can read and change every shadow");
        }
        let listener = listener
            .map_err(|e| anyhow!("cannot listen on {address}: {e}; choose another with --rest"))?;
        banner += &format!("\n  REST    http://{}", listener.local_addr()?);
        let stopped = stop.clone().cancelled_owned();
        let served = rest::serve(listener, service.clone(), stopped);
        http = Some(tokio::spawn(served));
    }
    let mut mqtt_front = None;
    if let (Some(broker), Some(url)) = (&broker, &fronts.broker) {
        let disorder = fronts.disorder.clone();
        let options = Options { disorder };
        let mut front = MqttFrontend::start(service.clone(), broker.clone(), options);
        tokio::select! {
            up = front.wait_until_up() => up?,
            _ = signals.next() => return Ok(()),
        }
        banner += &format!("\n  broker  {url}");
        if fronts.disorder.is_some() {
            banner += ", with messages disturbed as --disorder says";
        }
        mqtt_front = Some(front);
    }
    let locks = locks.map(|start| start(data, &service, broker));
    let _locks = locks.transpose()?;
    // A closed standard output does not end the service.
    let _ = writeln!(std::io::stdout(), "{banner}\n  data    {}", data.display());

    let lost = async {
        match &mut mqtt_front {
            Some(front) => front.ended().await.to_string(),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = signals.next() => {}
        () = service.ended() => {
            bail!("the store of shadows can no longer be written; the log says why; start again")
        }
        why = lost => bail!(why),
    }
    stop.cancel();
    if let Some(http) = http {
        let _ = http.await;
    }
    info!("stopped");
    Ok(())
}

impl FrontArgs {
    /// The broker, if one is chosen.
    ///
    /// # Errors
    /// No front is chosen, or the files for the broker cannot be used.
    fn broker(&self) -> Result<Option<Broker>, UnusableSettings> {
        if self.rest.is_none() && self.broker.is_none() {
            let text = "say where to serve: --rest ADDR, --broker URL, or both";
            return Err(UnusableSettings::new(text));
        }
        let files = TlsFiles {
            ca: self.broker_ca.clone(),
            certificate: self.broker_certificate.clone(),
            key: self.broker_key.clone(),
            login: self
                .broker_user
                .clone()
                .zip(self.broker_password_file.clone()),
        };
        let broker = self.broker.clone().map(|url| Broker::new(url, &files));
        broker.transpose().map_err(UnusableSettings::new)
    }
}
