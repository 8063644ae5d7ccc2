//! The service: it reads the settings, wires the adapters to the domain, and serves HTTP until it is told
//! to stop.

mod admission;
mod app;
mod bootstrap;
mod cli;
mod commands;
mod connection;
mod http;
mod logging;
mod metrics;
mod server;
mod settings;
mod signals;
mod startup;
mod workers;

use std::num::NonZero;
use std::process::ExitCode;

use tokio::net::TcpListener;

pub use bootstrap::Wiring;
use cli::Task;
pub use http::wire;
use settings::{Settings, UnusableSettings};
use signals::{Signals, Stop};

/// The exit code of settings that cannot be used, as of the command line's own errors.
const INVALID_SETTINGS: u8 = 2;

/// The whole program, as it is delivered.
pub fn main() -> ExitCode {
    run(&Wiring::default())
}

/// The whole program over other wiring. It ends with code 0 when it has done what it was asked for, with 2 where
/// that or the settings make no sense, and with 1 where it could not be done.
pub fn run(wiring: &Wiring) -> ExitCode {
    let task = match cli::read() {
        Ok(task) => task,
        Err(error) => {
            logging::print_fatal(cli::log_format(), &error);
            return ExitCode::from(INVALID_SETTINGS);
        }
    };
    let done = match task {
        Task::Serve(settings) => start(&settings, wiring),
        Task::CheckConfig {
            settings,
            layers,
            json,
        } => commands::check_config::run(&settings, &layers, json),
        Task::Audit {
            settings,
            options,
            json,
        } => commands::audit::run(&settings, options, json),
        Task::Lock(command) => commands::lock::run(command),
        Task::ApiKey(command) => commands::api_key::run(command),
        #[cfg(feature = "sandbox")]
        Task::Token(command) => commands::token::run(command),
        Task::Write(command) => commands::write::run(command),
        #[cfg(feature = "sandbox")]
        Task::HeldKeys(command) => commands::held_keys::run(command),
        #[cfg(feature = "mqtt")]
        Task::Shadow(command) => commands::shadow::serve(command),
        #[cfg(all(feature = "mqtt", feature = "sandbox"))]
        Task::Sandbox(command) => commands::sandbox::run(command),
        Task::Completions(shell) => {
            cli::print_completions(shell);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_fatal(cli::log_format(), &error.to_string());
            match error.is::<UnusableSettings>() {
                true => ExitCode::from(INVALID_SETTINGS),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn start(settings: &Settings, wiring: &Wiring) -> Result<(), bootstrap::Error> {
    let _logging = logging::start(settings.log, settings.log_level);
    // A thread for each core that this process may use, whatever the environment says of tokio's.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?;
    runtime.block_on(serve(settings, wiring))
}

async fn serve(settings: &Settings, wiring: &Wiring) -> Result<(), bootstrap::Error> {
    let mut signals = Signals::new()?;
    bootstrap::check(settings)?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}; choose another with --listen"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut wired = tokio::select! {
        wired = bootstrap::wire(settings, wiring, &url) => wired?,
        () = startup::answer_health_checks(&listener, &settings.bounds, bootstrap::ids()) => return Ok(()),
        _ = signals.next() => return Ok(()),
    };
    #[cfg(feature = "sandbox")]
    if settings.sandbox.is_some() && !address.ip().is_loopback() {
        tracing::warn!(%address, "the sandbox is open to others, and so are its demo credentials");
    }
    // Somebody who closes the terminal does not stop the service.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), wired.banner.as_bytes());
    let (app, mut broken) = (wired.app.clone(), None);
    let stop = async {
        let stop = tokio::select! {
            stop = signals.next() => stop,
            what = wired.broken() => {
                broken = Some(what);
                Stop::Now
            }
        };
        // A second signal ends the process without waiting.
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("stopped at once; what was in progress is taken up at the next start");
            std::process::exit(1);
        });
        stop
    };
    server::run(listener, app, settings, stop).await;
    match broken {
        None => Ok(()),
        Some(what) => Err(format!("{what}; the log says why; start again").into()),
    }
}
