//! The program `keywright`: it reads the settings, connects adapters to the domain, and serves HTTP until a signal stops it.

mod admin;
mod app;
mod bootstrap;
mod command_line;
mod commands;
mod connection;
mod device_report_endpoint;
mod error;
mod http;
mod log_output;
mod metrics;
mod mutex;
mod recent_events;
mod request_admission;
mod server;
mod service_manager;
mod settings;
mod shutdown;
mod signals;
mod startup_health;
mod webhook_service;
mod workers;

use std::process::ExitCode;

pub use bootstrap::wiring::Wiring;
use error::UnusableSettings;
pub use http::bench_access;

/// The exit code for invalid settings. It is also clap's for an invalid command line.
const INVALID_SETTINGS: u8 = 2;

/// Runs the program as it is delivered.
pub fn main() -> ExitCode {
    run(&Wiring::default())
}

/// Runs the program with other wiring. The exit code is 0 if the command has done its work, 2 if the command line or the
/// settings cannot be used, and 1 for any other failure.
pub fn run(wiring: &Wiring) -> ExitCode {
    let Err(error) = command_line::run(wiring) else {
        return ExitCode::SUCCESS;
    };
    log_output::print_fatal(settings::log_options::log_format(), &format!("{error:#}"));
    match error.is::<UnusableSettings>() {
        true => ExitCode::from(INVALID_SETTINGS),
        false => ExitCode::FAILURE,
    }
}
