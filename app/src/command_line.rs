//! The command line of the program: it finds the command and its settings, and runs it.

use std::ffi::OsString;

use anyhow::anyhow;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bootstrap::wiring::Wiring;
use crate::commands::api_key::ApiKeyCommand;
use crate::commands::audit::AuditOptions;
#[cfg(feature = "sandbox")]
use crate::commands::held_keys::HeldKeysCommand;
use crate::commands::lock::LockCommand;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
use crate::commands::sandbox::SandboxCommand;
#[cfg(feature = "mqtt")]
use crate::commands::shadow::ShadowCommand;
#[cfg(feature = "sandbox")]
use crate::commands::token::TokenCommand;
use crate::commands::write::WriteCommand;
use crate::commands::{api_key, audit, check_config, lock, serve, settings, write};
#[cfg(feature = "sandbox")]
use crate::commands::{held_keys, token};
use crate::error::UnusableSettings;
use crate::options::layers::Layers;
use crate::options::log::log_format;
use crate::options::serve::ServeArgs;
use crate::settings::{LogFormat, Settings};

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
    /// Make a token that the sandbox accepts.
    #[cfg(feature = "sandbox")]
    Token(TokenCommand),
    /// Send a write to a running server.
    Write(WriteCommand),
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
    Settings,
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
    match parse(&arguments)?.command {
        None | Some(Command::Serve(_)) => {
            serve::run(&ServerCommand::read(&arguments, "serve")?.settings, wiring)
        }
        Some(Command::CheckConfig(_)) => {
            let server = ServerCommand::read(&arguments, "check-config")?;
            check_config::run(&server.settings, &server.layers, server.json)
        }
        Some(Command::Audit(AuditArgs { options, .. })) => {
            // The options of the audit itself are no settings: they are not read from variables or the settings file.
            let own = AuditOptions::augment_args(clap::Command::new("audit"));
            let server = ServerCommand::read(&without_options(&arguments, &own), "audit")?;
            audit::run(&server.settings, options, server.json)
        }
        Some(Command::Lock(command)) => lock::run(command),
        Some(Command::ApiKey(command)) => api_key::run(command),
        #[cfg(feature = "sandbox")]
        Some(Command::Token(command)) => token::run(command),
        Some(Command::Write(command)) => write::run(command),
        #[cfg(feature = "sandbox")]
        Some(Command::HeldKeys(command)) => held_keys::run(command),
        #[cfg(feature = "mqtt")]
        Some(Command::Shadow(command)) => crate::commands::shadow::run(command),
        #[cfg(all(feature = "mqtt", feature = "sandbox"))]
        Some(Command::Sandbox(command)) => crate::commands::sandbox::run(command),
        Some(Command::Completions { shell }) => {
            let (mut command, mut stdout) = (CommandLine::command(), std::io::stdout());
            clap_complete::generate(shell, &mut command, "keywright", &mut stdout);
            Ok(())
        }
        Some(Command::Settings) => {
            settings::run(&ServeArgs::augment_args(clap::Command::new("keywright")));
            Ok(())
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<CommandLine, UnusableSettings> {
    CommandLine::try_parse_from(arguments).or_else(|error| match log_format() {
        // A program that reads JSON lines cannot read clap's colours and its text of several lines.
        LogFormat::Json if error.use_stderr() => Err(UnusableSettings::new(error)),
        _ => error.exit(),
    })
}

/// A command with the settings of the server, out of all layers.
struct ServerCommand {
    settings: Settings,
    layers: Layers,
    json: bool,
}

impl ServerCommand {
    /// # Errors
    /// A setting is unknown or invalid, or contradicts another; the text names it and the place where it is set.
    fn read(arguments: &[OsString], command: &str) -> Result<Self, UnusableSettings> {
        Self::try_read(arguments, command).map_err(UnusableSettings::new)
    }

    fn try_read(arguments: &[OsString], command: &str) -> anyhow::Result<Self> {
        let options = arguments
            .iter()
            .skip(1)
            .skip_while(|argument| **argument == *command);
        let options: Vec<OsString> = options.cloned().collect();
        let command = ServeArgs::augment_args(clap::Command::new("keywright")).no_binary_name(true);
        let layers = Layers::read(&command, &options)?;
        let parsed = command.try_get_matches_from(layers.arguments());
        let args = parsed.and_then(|matches| ServeArgs::from_arg_matches(&matches));
        let args = args.map_err(|e| anyhow!("{e}"))?;
        Ok(Self {
            json: args.json,
            settings: args.settings()?,
            layers,
        })
    }
}

/// The arguments without the options of `command`.
fn without_options(arguments: &[OsString], command: &clap::Command) -> Vec<OsString> {
    let (mut others, mut rest) = (Vec::new(), arguments.iter());
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let (name, has_value) = match text.split_once('=') {
            Some((name, _)) => (name, true),
            None => (&*text, false),
        };
        let is_named = |option: &&clap::Arg| {
            let long = option.get_long();
            long.is_some() && name.strip_prefix("--") == long
        };
        match command.get_arguments().find(is_named) {
            None => others.push(argument.clone()),
            Some(option) if option.get_action().takes_values() && !has_value => {
                rest.next();
            }
            Some(_) => {}
        }
    }
    others
}
