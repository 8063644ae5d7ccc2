//! The layers of settings: `keywright.toml`, environment variables `KEYWRIGHT_…`, and the command line, each stronger than the
//! one before. The options of the command line define which keys exist and which values are valid in all three.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::option_help::help_and_default;

/// The settings file that is read if none is named.
const FILE: &str = "keywright.toml";

const PREFIX: &str = "KEYWRIGHT_";

/// The variable that names the settings file.
const CONFIG: &str = "KEYWRIGHT_CONFIG";

/// Names after the prefix that are no settings of the server: scripts, clients and load tests use them.
const OTHERS: [&str; 4] = ["URL", "TOKEN", "API_KEY", "LOADTEST_LOCKS"];

/// The layer that sets a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File(PathBuf),
    Variable(String),
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A setting with its value and where it comes from.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name of the long option.
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    pub(crate) source: Source,
    /// The text of a default that depends on other settings.
    pub(crate) described_default: Option<String>,
}

/// Parses a command line that has the same effect as all layers together. `program` has parsed the `arguments` of the real one as
/// `matches`; the options of `server` are the settings. Returns also each setting with the layer that sets it.
///
/// # Errors
/// A key or variable is unknown, or its value is invalid; the text says which one, where it is set, and what is valid.
pub(crate) fn read(
    program: Command,
    server: &Command,
    matches: &ArgMatches,
    mut arguments: Vec<OsString>,
) -> anyhow::Result<(ArgMatches, Vec<Setting>)> {
    let line = options(matches);
    let mut lower = lower_layers(server, line.get_one::<PathBuf>("config").cloned())?;
    for arg in known(server) {
        if line.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            lower.remove(&key(arg));
        }
    }
    for (key, (values, _)) in &lower {
        let options = values.iter().map(|value| format!("--{key}={value}"));
        arguments.extend(options.map(OsString::from));
    }
    let matches = program.try_get_matches_from(arguments);
    let matches = matches.map_err(|e| anyhow!("{e}"))?;
    let all = options(&matches);
    let setting = |arg: &Arg| {
        let (id, key) = (arg.get_id().as_str(), key(arg));
        let values = all.get_raw(id).into_iter().flatten();
        let source = match (lower.get(&key), all.value_source(id)) {
            (Some((_, source)), _) => source.clone(),
            (None, Some(ValueSource::CommandLine)) => Source::CommandLine,
            _ => Source::Default,
        };
        Setting {
            key,
            values: values.map(|v| v.to_string_lossy().into_owned()).collect(),
            source,
            described_default: help_and_default(arg).1,
        }
    };
    let settings = known(server).map(setting).collect();
    Ok((matches, settings))
}

/// The options of the command that a command line names, or of the default command.
fn options(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, options)| options)
}

/// The values of the layers below the command line.
fn lower_layers(
    server: &Command,
    file: Option<PathBuf>,
) -> anyhow::Result<BTreeMap<String, (Vec<String>, Source)>> {
    let mut lower = BTreeMap::new();
    if let Some((path, table)) = read_file(file)? {
        for (key, value) in table {
            let place = format!("{}: `{key}`", path.display());
            let values = texts(&value).ok_or_else(|| {
                anyhow!("{place} must be a text, a number, true, false, or a list of those")
            })?;
            check(server, &key, &values, &place)?;
            lower.insert(key, (values, Source::File(path.clone())));
        }
    }
    for (name, value) in std::env::vars_os() {
        let Some(key) = key_of(&name).filter(|_| !is_service_link(&name, &value)) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        let value = variable_text(&name, value)?;
        let repeats =
            find(server, &key).is_some_and(|arg| matches!(arg.get_action(), ArgAction::Append));
        let values = match repeats {
            true => value.split(';').map(|v| v.trim().to_owned()).collect(),
            false => vec![value],
        };
        check(server, &key, &values, &name)?;
        lower.insert(key, (values, Source::Variable(name)));
    }
    Ok(lower)
}

/// The value of one setting in an environment variable or the settings file, for commands that read few settings.
///
/// # Errors
/// The file cannot be read, or the value there is not a text.
pub(super) fn lower_value(key: &str) -> anyhow::Result<Option<String>> {
    let variable = format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"));
    if let Some(value) = std::env::var_os(&variable) {
        return variable_text(&variable, value).map(Some);
    }
    let Some((path, table)) = read_file(None)? else {
        return Ok(None);
    };
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => bail!("{}: `{key}` must be a text", path.display()),
    }
}

/// The value without white space around it: a value that a shell reads from a file often ends with a line end.
fn variable_text(name: &str, value: OsString) -> anyhow::Result<String> {
    let text = value.into_string();
    let text = text.map_err(|_| anyhow!("{name} is not valid UTF-8"))?;
    Ok(text.trim().to_owned())
}

fn known(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some())
}

fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().to_owned()
}

fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    known(command).find(|arg| arg.get_long() == Some(key))
}

/// The keys and values of the settings file. Only a file that is named must exist.
fn read_file(named: Option<PathBuf>) -> anyhow::Result<Option<(PathBuf, Table)>> {
    let from_environment = match std::env::var_os(CONFIG) {
        Some(value) => Some(PathBuf::from(variable_text(CONFIG, value)?)),
        None => None,
    };
    let named = named.or(from_environment);
    let path = named.clone().unwrap_or_else(|| Path::new(FILE).to_owned());
    let text = match std::fs::read_to_string(&path) {
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read the settings in {}", path.display()))?,
    };
    let table = text.parse::<Table>();
    let table = table.map_err(|e| anyhow!("{}: {}", path.display(), e.to_string().trim_end()))?;
    Ok(Some((path, table)))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(true) => Some("on".to_owned()),
        Value::Boolean(false) => Some("off".to_owned()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => text(value).map(|text| vec![text]),
    }
}

/// The setting that a variable sets. `None`: it sets none.
fn key_of(variable: &OsStr) -> Option<String> {
    let name = variable.to_str()?.strip_prefix(PREFIX)?;
    (!OTHERS.contains(&name)).then(|| name.to_lowercase().replace('_', "-"))
}

/// Whether a variable is a Kubernetes service link. Kubernetes sets such variables in each container for each service of the
/// namespace, and those of a service that is called keywright, or keywright-something, have the prefix of the settings.
fn is_service_link(variable: &OsStr, value: &OsStr) -> bool {
    let (Some(name), Some(value)) = (variable.to_str(), value.to_str()) else {
        return false;
    };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_url = |text: &str| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    };
    if name.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    // NAME_PORT_80_TCP, which _PROTO, _PORT or _ADDR may follow.
    let parts: Vec<&str> = name.split('_').collect();
    parts.windows(3).any(|part| {
        part[0] == "PORT" && is_number(part[1]) && matches!(part[2], "TCP" | "UDP" | "SCTP")
    })
}

/// Checks that the setting exists and that the values are valid. `place`: where they are set.
fn check(command: &Command, key: &str, values: &[String], place: &str) -> anyhow::Result<()> {
    // Options that are hidden in the help say how a command prints, and `config` names the file: neither is a setting.
    let is_setting = |arg: &&Arg| !arg.is_hide_set() && arg.get_long() != Some("config");
    if find(command, key).is_none_or(Arg::is_hide_set) {
        let settings = known(command).filter(is_setting);
        let all: BTreeSet<&str> = settings.filter_map(Arg::get_long).collect();
        let all: Vec<&str> = all.into_iter().collect();
        bail!("{place} is not a setting; there are {}", all.join(", "));
    }
    let arguments = values.iter().map(|value| format!("--{key}={value}"));
    let Err(error) = command.clone().try_get_matches_from(arguments) else {
        return Ok(());
    };
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let why = first.trim_start_matches("error: ");
    let possible = text
        .lines()
        .find(|line| line.trim_start().starts_with("[possible values"));
    let possible = possible.map(|line| format!(" {}", line.trim()));
    bail!("{place}: {why}{}", possible.unwrap_or_default())
}
