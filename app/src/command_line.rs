//! The command line of the program: it finds the command and its settings, and runs it.

use std::ffi::OsString;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bootstrap::wiring::Wiring;
use crate::commands::api_key::ApiKeyCommand;
use crate::commands::audit::AuditOptions;
use crate::commands::events::EventsCommand;
#[cfg(feature = "sandbox")]
use crate::commands::held_keys::HeldKeysCommand;
use crate::commands::listen::ListenCommand;
use crate::commands::lock::LockCommand;
use crate::commands::operator::OperatorCommand;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
use crate::commands::sandbox::SandboxCommand;
use crate::commands::settings::SettingsCommand;
#[cfg(feature = "mqtt")]
use crate::commands::shadow::ShadowCommand;
#[cfg(feature = "sandbox")]
use crate::commands::token::TokenCommand;
use crate::commands::webhook::WebhookCommand;
use crate::commands::write::WriteCommand;
use crate::commands::writes::WritesCommand;
use crate::commands::{
    api_key, audit, check_config, events, listen, lock, operator, serve, settings, webhook, write,
    writes,
};
#[cfg(feature = "sandbox")]
use crate::commands::{held_keys, token};
use crate::error::UnusableSettings;
use crate::settings::LogFormat;
use crate::settings::layers;
use crate::settings::log_options::log_format;
use crate::settings::serve_options::ServeArgs;

/// Writes keys to smart locks over HTTP, and follows each write until its lock has confirmed it.
///
/// Without a command it serves HTTP, by default with the sandbox. Each setting can be an option, an environment variable or a
/// key in keywright.toml: `--time-to-live 24h`, `KEYWRIGHT_TIME_TO_LIVE=24h` and `time-to-live = "24h"` are the same. An option
/// overrides a variable, and a variable overrides the file.
#[derive(Parser)]
#[command(name = "keywright", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP. This is the default command.
    Serve(ServeArgs),
    /// Check the settings, and show each of them with the place where it is set.
    CheckConfig(ServeArgs),
    /// Compare the shadows of all locks with their writes. It needs the settings of the server, and may run beside it.
    Audit(AuditArgs),
    /// Add, list, show and import locks. The server may be running.
    Lock(LockCommand),
    /// Issue, rotate, revoke and list API keys. A running server follows within a second.
    ApiKey(ApiKeyCommand),
    /// Give people access to the operators' page, and take it away. A running server follows at once.
    Operator(OperatorCommand),
    /// Make a token that the sandbox accepts.
    #[cfg(feature = "sandbox")]
    Token(TokenCommand),
    /// Send a write to a running server.
    Write(WriteCommand),
    /// List the writes of all locks from a running server, the newest first.
    Writes(WritesCommand),
    /// Read the events of all locks from a running server.
    Events(EventsCommand),
    /// Register webhooks with a running server, and manage them.
    Webhook(WebhookCommand),
    /// Deliver the events of a running server to a program on this machine, as a webhook does.
    Listen(ListenCommand),
    /// Print the keys that virtual locks hold in their own memories. The program that runs them may be running.
    #[cfg(feature = "sandbox")]
    HeldKeys(HeldKeysCommand),
    /// Serve device shadows as AWS IoT does, on an MQTT broker and over REST.
    #[cfg(feature = "mqtt")]
    Shadow(ShadowCommand),
    /// Serve device shadows with virtual locks, to try a backend or a broker.
    #[cfg(all(feature = "mqtt", feature = "sandbox"))]
    Sandbox(SandboxCommand),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the settings of the server as a Markdown page.
    #[command(hide = true)]
    Settings(SettingsCommand),
}

#[derive(Args)]
struct AuditArgs {
    #[command(flatten)]
    options: AuditOptions,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Runs the command that the command line names. Help and the version are printed, and end the program at once.
///
/// # Errors
/// The command line or the settings cannot be used ([`UnusableSettings`]), or the command fails.
pub(crate) fn run(wiring: &Wiring) -> anyhow::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = CommandLine::command();
    // Only these options are settings: those of the audit itself are not read from variables or the settings file.
    let server = ServeArgs::augment_args(clap::Command::new("keywright")).no_binary_name(true);
    let parsed = program.clone().try_get_matches_from(&arguments);
    let (mut matches, mut all) = (parsed.or_else(refuse)?, Vec::new());
    let command = matches.subcommand_name();
    if matches!(command, None | Some("serve" | "check-config" | "audit")) {
        let read = layers::read(program, &server, &matches, arguments);
        (matches, all) = read.map_err(UnusableSettings::new)?;
    }
    let checked = |args: ServeArgs| args.settings().map_err(UnusableSettings::new);
    let CommandLine { command, serve } = CommandLine::from_arg_matches(&matches)?;
    match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(args) => serve::run(&checked(args)?, wiring),
        Command::CheckConfig(args) => {
            let json = args.json;
            check_config::run(&checked(args)?, &all, json)
        }
        Command::Audit(AuditArgs { options, serve }) => {
            let json = serve.json;
            audit::run(&checked(serve)?, options, json)
        }
        Command::Lock(command) => lock::run(command),
        Command::ApiKey(command) => api_key::run(command),
        Command::Operator(command) => operator::run(command),
        #[cfg(feature = "sandbox")]
        Command::Token(command) => token::run(command),
        Command::Write(command) => write::run(command),
        Command::Writes(command) => writes::run(command),
        Command::Events(command) => events::run(command),
        Command::Webhook(command) => webhook::run(command),
        Command::Listen(command) => listen::run(command),
        #[cfg(feature = "sandbox")]
        Command::HeldKeys(command) => held_keys::run(command),
        #[cfg(feature = "mqtt")]
        Command::Shadow(command) => crate::commands::shadow::run(command),
        #[cfg(all(feature = "mqtt", feature = "sandbox"))]
        Command::Sandbox(command) => crate::commands::sandbox::run(command),
        Command::Completions { shell } => {
            let (mut command, mut stdout) = (CommandLine::command(), std::io::stdout());
            clap_complete::generate(shell, &mut command, "keywright", &mut stdout);
            Ok(())
        }
        Command::Settings(command) => {
            settings::run(&command, &server);
            Ok(())
        }
    }
}

/// Prints help, the version or an error and ends the program, or returns the error for a log in JSON.
fn refuse(error: clap::Error) -> Result<ArgMatches, UnusableSettings> {
    match log_format() {
        // A program that reads JSON lines cannot read clap's colours and its text of several lines.
        LogFormat::Json if error.use_stderr() => Err(UnusableSettings::new(error)),
        _ => error.exit(),
    }
}
