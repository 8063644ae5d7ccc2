//! The command line, and the layers below it.

mod layers;
#[cfg(feature = "sandbox")]
mod sandbox;
mod serve;
mod shadow_access;
mod store;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

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
use crate::settings::{LogFormat, Settings, StoreChoice, UnusableSettings};
pub(crate) use layers::{Layers, Source};
pub(crate) use serve::Serve;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
pub(crate) use shadow_access::shadow_name;
use store::StoreArgs;
#[cfg(feature = "mqtt")]
pub(crate) use values::{LogLines, address};
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
pub(crate) use values::{behaviour, count};

/// Writes keys to smart locks, and follows each write until its lock has confirmed it.
///
/// Without a command it serves the sandbox. What is set on the command line is stronger than the variables
/// KEYWRIGHT_…, and those are stronger than keywright.toml, which has the long options' names for keys:
/// `--time-to-live 24h`, `KEYWRIGHT_TIME_TO_LIVE=24h` and `time-to-live = "24h"` say the same.
#[derive(Parser)]
#[command(name = "keywright", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serves HTTP. The default.
    Serve(Serve),
    /// Says what would run with which settings, and where each of them comes from.
    CheckConfig(Serve),
    /// Compares the shadows of all locks with their writes, beside servers that may be running; the settings are those
    /// of the server.
    Audit(AuditArgs),
    /// Adds, lists, shows and imports locks. The server may be running.
    Lock(LockCommand),
    /// Issues, rotates, revokes and lists API keys. A running server follows within a second.
    ApiKey(ApiKeyCommand),
    /// Makes a token of the sandbox, for trying things out.
    #[cfg(feature = "sandbox")]
    Token(TokenCommand),
    /// Asks a running server to write a key.
    Write(WriteCommand),
    /// Prints the keys that virtual locks have in their own memories, beside the program that runs them.
    #[cfg(feature = "sandbox")]
    HeldKeys(HeldKeysCommand),
    /// Serves device shadows as AWS IoT does, on a broker of your own and over REST.
    #[cfg(feature = "mqtt")]
    Shadow(ShadowCommand),
    /// The same with virtual locks, to try a backend or a broker on.
    #[cfg(all(feature = "mqtt", feature = "sandbox"))]
    Sandbox(SandboxCommand),
    /// Prints what makes a shell complete these commands.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What is audited, and what becomes of it.
#[derive(Args)]
struct AuditArgs {
    #[command(flatten)]
    options: AuditOptions,
    #[command(flatten)]
    serve: Serve,
}

/// Where a command finds what the server keeps.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreLocation {
    /// Where the server keeps everything [default: as in keywright.toml, or ./keywright-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

impl StoreLocation {
    /// # Errors
    /// The file of settings cannot be read.
    pub(crate) fn data(&self) -> Result<PathBuf, UnusableSettings> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let below = layers::below("data").map_err(UnusableSettings::new)?;
        Ok(below.map_or_else(|| PathBuf::from(serve::DATA), PathBuf::from))
    }

    /// # Errors
    /// The file of settings cannot be read, or what it says of the store makes no sense.
    pub(crate) fn store(&self) -> Result<StoreChoice, UnusableSettings> {
        let store = self.store.clone().with_lower_layers();
        let chosen = store.and_then(|store| store.choose());
        chosen.map_err(UnusableSettings::new)
    }
}

/// What is to be done.
pub(crate) enum Task {
    Serve(Box<Settings>),
    CheckConfig {
        settings: Box<Settings>,
        layers: Layers,
        json: bool,
    },
    Audit {
        settings: Box<Settings>,
        options: AuditOptions,
        json: bool,
    },
    Lock(LockCommand),
    ApiKey(ApiKeyCommand),
    #[cfg(feature = "sandbox")]
    Token(TokenCommand),
    Write(WriteCommand),
    #[cfg(feature = "sandbox")]
    HeldKeys(HeldKeysCommand),
    #[cfg(feature = "mqtt")]
    Shadow(ShadowCommand),
    #[cfg(all(feature = "mqtt", feature = "sandbox"))]
    Sandbox(SandboxCommand),
    Completions(clap_complete::Shell),
}

/// Parses the command line and the settings below it. Prints help and the version itself, and ends the program then.
///
/// # Errors
/// A setting is unknown, has a value of another kind, or contradicts another; the text names it and where it stands.
pub(crate) fn read() -> Result<Task, String> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = Cli::try_parse_from(&arguments).or_else(|error| match log_format() {
        // A program that reads JSON lines cannot read clap's colours and its text of several lines.
        LogFormat::Json if error.use_stderr() => Err(error.to_string()),
        _ => error.exit(),
    })?;
    Ok(match cli.command {
        None | Some(Command::Serve(_)) => {
            let (serve, _) = layered(&arguments, "serve")?;
            Task::Serve(Box::new(serve.settings()?))
        }
        Some(Command::CheckConfig(_)) => {
            let (serve, layers) = layered(&arguments, "check-config")?;
            Task::CheckConfig {
                json: serve.json,
                settings: Box::new(serve.settings()?),
                layers,
            }
        }
        Some(Command::Audit(AuditArgs { options, .. })) => {
            // They stand on the command line or nowhere: no file of settings repairs anything.
            let own = AuditOptions::augment_args(clap::Command::new("audit"));
            let (serve, _) = layered(&without_options(&arguments, &own), "audit")?;
            Task::Audit {
                json: serve.json,
                settings: Box::new(serve.settings()?),
                options,
            }
        }
        Some(Command::Lock(command)) => Task::Lock(command),
        Some(Command::ApiKey(command)) => Task::ApiKey(command),
        #[cfg(feature = "sandbox")]
        Some(Command::Token(command)) => Task::Token(command),
        Some(Command::Write(command)) => Task::Write(command),
        #[cfg(feature = "sandbox")]
        Some(Command::HeldKeys(command)) => Task::HeldKeys(command),
        #[cfg(feature = "mqtt")]
        Some(Command::Shadow(command)) => {
            command.check()?;
            Task::Shadow(command)
        }
        #[cfg(all(feature = "mqtt", feature = "sandbox"))]
        Some(Command::Sandbox(command)) => {
            command.check()?;
            Task::Sandbox(command)
        }
        Some(Command::Completions { shell }) => Task::Completions(shell),
    })
}

/// The arguments without those that are options of this command.
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

/// How lines on standard error are to look, as far as that can be said of settings which may be invalid otherwise.
pub(crate) fn log_format() -> LogFormat {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().zip(arguments.iter().skip(1));
    let mut given = given
        .filter(|(option, _)| *option == "--log")
        .map(|(_, value)| value.as_str());
    let mut joined = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("--log="));
    let named = joined
        .next_back()
        .or_else(|| given.next_back())
        .map(str::to_owned);
    let named = named.or_else(|| layers::below("log").ok().flatten());
    match named.as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

/// The options of a command that serves, with the layers below the command line.
fn layered(arguments: &[OsString], name: &str) -> Result<(Serve, Layers), String> {
    let rest = arguments
        .iter()
        .skip(1)
        .skip_while(|argument| **argument == *name);
    let command = Serve::augment_args(clap::Command::new("keywright")).no_binary_name(true);
    let layers = Layers::read(&command, &rest.cloned().collect::<Vec<_>>())?;
    let matches = command
        .try_get_matches_from(layers.arguments())
        .map_err(|e| e.to_string())?;
    let serve = Serve::from_arg_matches(&matches).map_err(|e| e.to_string())?;
    Ok((serve, layers))
}

/// Writes what makes a shell complete the commands.
pub(crate) fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "keywright",
        &mut std::io::stdout(),
    );
}
