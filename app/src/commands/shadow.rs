//! `keywright shadow`: shadows for others, over REST and on a broker.

use std::any::Any;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use keywright_mqtt::{Broker, BrokerUrl, InvalidBroker, TlsFiles};
use keywright_shadow::mqtt::{Disorder, MqttFrontend, Options, parse_disorder};
use keywright_shadow::{ShadowService, rest};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::say;
use crate::bootstrap::{Error, make_private_folder, open_shadows};
use crate::signals::Signals;
use crate::{cli, logging};

/// Shadows alone.
#[derive(Args)]
pub(crate) struct ShadowCommand {
    #[command(flatten)]
    fronts: Fronts,
    /// Where the shadows are kept. Made where it is missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Where shadows are served.
#[derive(Args)]
pub(super) struct Fronts {
    /// Serve REST here, as AWS IoT's data plane does; port 0 takes a free one. Signatures are not looked at, so
    /// whoever reaches it may do everything.
    #[arg(long, value_name = "ADDR", value_parser = cli::address)]
    rest: Option<SocketAddr>,
    /// Serve on this broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS. One service a broker.
    #[arg(long, value_name = "URL")]
    broker: Option<BrokerUrl>,
    /// The certificates that the broker's is traced back to [default: the system's].
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_ca: Option<PathBuf>,
    /// The certificate that the broker is shown.
    #[arg(
        long,
        value_name = "FILE",
        requires = "broker_key",
        requires = "broker"
    )]
    broker_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(
        long,
        value_name = "FILE",
        requires = "broker_certificate",
        requires = "broker"
    )]
    broker_key: Option<PathBuf>,
    /// The user of the broker.
    #[arg(
        long,
        value_name = "NAME",
        requires = "broker_password_file",
        requires = "broker"
    )]
    broker_user: Option<String>,
    /// The file with the user's password.
    #[arg(
        long,
        value_name = "FILE",
        requires = "broker_user",
        requires = "broker"
    )]
    broker_password_file: Option<PathBuf>,
    /// For tests of locks and backends, disturb messages on the broker: shuffle=20,repeat=0.3,lose=0.1,seed=7 holds
    /// each back for up to 20 ms, repeats a third, and loses a tenth of the answers.
    #[arg(long, value_name = "LIST", value_parser = disorder, requires = "broker")]
    disorder: Option<DisorderArgs>,
    /// Refuse more requests of one thing than so many a second (429); AWS IoT takes 20.
    #[arg(long, value_name = "N")]
    requests_a_second: Option<u32>,
    /// Refuse every request with this status, to see what a client does then: 400, 401, 403, 404, 405, 409, 413, 415,
    /// 429, 500 or 503.
    #[arg(long, value_name = "STATUS", value_parser = refusal)]
    refuse_all: Option<u16>,
    #[command(flatten)]
    log: cli::LogLines,
}

fn refusal(text: &str) -> Result<u16, &'static str> {
    let known = [400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 503];
    let status = text.parse().ok().filter(|status| known.contains(status));
    status.ok_or("it is 400, 401, 403, 404, 405, 409, 413, 415, 429, 500 or 503")
}

#[derive(Clone)]
struct DisorderArgs(Disorder);

fn disorder(text: &str) -> Result<DisorderArgs, String> {
    parse_disorder(text)
        .map(DisorderArgs)
        .map_err(|e| e.to_string())
}

impl ShadowCommand {
    /// # Errors
    /// It says not enough, or what does not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.fronts.check()
    }
}

pub(crate) fn serve(command: ShadowCommand) -> Result<(), Error> {
    run(command.fronts, command.data, None)
}

/// Starts what uses the shadows in this process; it ends when what this answers is dropped.
pub(super) type StartUser =
    Box<dyn FnOnce(&Path, &ShadowService, Option<Broker>) -> Result<Box<dyn Any>, Error>>;

/// Serves shadows until a signal comes, with `locks` on them, where there are any.
pub(super) fn run(fronts: Fronts, data: PathBuf, locks: Option<StartUser>) -> Result<(), Error> {
    let _logging = logging::start(fronts.log.log, fronts.log.log_level);
    make_private_folder(&data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve_all(fronts, data, locks))
}

async fn serve_all(fronts: Fronts, data: PathBuf, locks: Option<StartUser>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let broker = fronts.broker()?;
    let service = open_shadows(&data).await?;
    service.limit_requests(fronts.requests_a_second);
    service.refuse_all(fronts.refuse_all);
    let mut banner = String::from(match locks {
        Some(_) => "Keywright's shadows and virtual locks are served",
        None => "Keywright's shadows are served",
    });

    let (stop, stopped) = oneshot::channel::<()>();
    let mut http = None;
    if let Some(address) = fronts.rest {
        let listener = TcpListener::bind(address).await;
        if !address.ip().is_loopback() {
            warn!(%address, "whoever reaches this address may read and change every shadow");
        }
        let listener = listener
            .map_err(|e| format!("cannot listen on {address}: {e}; choose another with --rest"))?;
        banner += &format!("\n  REST    http://{}", listener.local_addr()?);
        let stopped = async { drop(stopped.await) };
        http = Some(tokio::spawn(rest::serve(
            listener,
            service.clone(),
            stopped,
        )));
    }
    let mut attached = None;
    if let (Some(broker), Some(url)) = (&broker, &fronts.broker) {
        let disturbed = fronts.disorder.is_some();
        let options = Options {
            disorder: fronts.disorder.map(|DisorderArgs(disorder)| disorder),
        };
        let mut front = MqttFrontend::start(service.clone(), broker.clone(), options);
        tokio::select! {
            up = front.wait_until_up() => up?,
            _ = signals.next() => return Ok(()),
        }
        banner += &format!("\n  broker  {url}");
        if disturbed {
            banner += ", with messages disturbed as --disorder says";
        }
        attached = Some(front);
    }
    let _locks = match locks {
        Some(start) => Some(start(&data, &service, broker)?),
        None => None,
    };
    say!("{banner}\n  data    {}", data.display());

    let lost = async {
        match &mut attached {
            Some(attached) => attached.ended().await.to_string(),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = signals.next() => {}
        () = service.ended() => return Err("the store of shadows can no longer be written; the log says why; start again".into()),
        why = lost => return Err(why.into()),
    }
    drop(stop);
    if let Some(http) = http {
        let _ = http.await;
    }
    info!("stopped");
    Ok(())
}

impl Fronts {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.rest.is_none() && self.broker.is_none() {
            return Err("say where to serve: --rest ADDR, --broker URL, or both".into());
        }
        self.broker().map(drop).map_err(|e| e.to_string())
    }

    fn broker(&self) -> Result<Option<Broker>, InvalidBroker> {
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
        broker.transpose()
    }
}
