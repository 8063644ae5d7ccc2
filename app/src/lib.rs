//! The service: it reads the settings, wires the adapters to the domain, and serves HTTP until it is told
//! to stop.

mod app;
mod bootstrap;
mod cli;
mod demo_credentials;
mod http;
mod logging;
mod server;
mod settings;
mod workers;

use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use bootstrap::Wiring;
use settings::Settings;

/// The exit code of settings that cannot be used, as of the command line's own errors.
const INVALID_SETTINGS: u8 = 2;

/// The whole program, as it is delivered.
pub fn main() -> ExitCode {
    run(&Wiring::default())
}

/// The whole program over other wiring. It ends with code 0 after a signal, with 2 where the settings cannot be used, and with 1
/// where the service could not start.
pub fn run(wiring: &Wiring) -> ExitCode {
    let settings = match cli::read() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("keywright: {error}");
            return ExitCode::from(INVALID_SETTINGS);
        }
    };
    logging::start(&settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("keywright: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(&settings, wiring)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keywright: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: &Settings, wiring: &Wiring) -> Result<(), bootstrap::Error> {
    let mut signals = Signals::new()?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}; choose another with --listen"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut wired = tokio::select! {
        wired = bootstrap::sandbox(settings, wiring, &url) => wired?,
        () = signals.next() => return Ok(()),
    };
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the sandbox is open to others, and so are its demo credentials");
    }
    // Somebody who closes the terminal does not stop the service.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), wired.banner.as_bytes());
    let (app, mut broken) = (wired.app.clone(), None);
    let stop = async {
        tokio::select! {
            () = signals.next() => {}
            what = wired.broken() => broken = Some(what),
        }
        // Whoever asks twice does not want to wait.
        tokio::spawn(async move {
            signals.next().await;
            eprintln!(
                "keywright: stopped at once; what was in progress is taken up at the next start"
            );
            std::process::exit(1);
        });
    };
    server::run(listener, app, settings, stop).await;
    match broken {
        None => Ok(()),
        Some(what) => Err(format!("{what}; the log says why; start again").into()),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
