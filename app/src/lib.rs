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
use tokio::signal::unix::{SignalKind, signal};

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
    let asked_to_stop = stop_signal()?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}; choose another with --listen"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let wired = bootstrap::sandbox(settings, wiring, &url).await?;
    // Somebody who closes the terminal does not stop the service.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), wired.banner.as_bytes());
    server::run(listener, wired.app.clone(), settings, asked_to_stop).await;
    drop(wired);
    Ok(())
}

/// Ends at the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
