//! `keywright.toml` below the variables `KEYWRIGHT_…` below the command line. One definition, that of the options,
//! says what is known and what is valid in all three.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// The file that is read when none is named.
const FILE: &str = "keywright.toml";

const PREFIX: &str = "KEYWRIGHT_";

/// The variable that names the file.
const CONFIG: &str = "KEYWRIGHT_CONFIG";

/// Variables of that prefix that are not the server's: scripts, clients and load tests have them.
const OTHERS: [&str; 4] = ["URL", "TOKEN", "API_KEY", "LOADTEST_LOCKS"];

/// Where a setting was set.
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

/// What was set, by the names of the long options.
#[derive(Debug)]
pub(crate) struct Layers {
    given: Vec<OsString>,
    below: BTreeMap<String, (Vec<String>, Source)>,
    /// Each setting with its values and where they come from.
    pub(crate) settings: Vec<(String, Vec<String>, Source)>,
}

impl Layers {
    /// # Errors
    /// A key or variable is unknown, or its value is not valid; the text names it, where it stands, and what is
    /// allowed.
    pub(super) fn read(command: &Command, given: &[OsString]) -> Result<Self, String> {
        let matches = command.clone().try_get_matches_from(given);
        let matches = matches.unwrap_or_else(|error| error.exit());
        let on_command_line = |key: &str| {
            let arg = find(command, key);
            let source = arg.and_then(|arg| matches.value_source(arg.get_id().as_str()));
            source == Some(ValueSource::CommandLine)
        };
        let mut below = BTreeMap::new();
        let named = matches.get_one::<PathBuf>("config").cloned();
        if let Some((path, table)) = read_file(named)? {
            for (key, value) in table {
                let at = Source::File(path.clone());
                let values = texts(&value).ok_or_else(|| {
                    format!(
                        "{}: `{key}` must be a text, a number, true, false, or a list of those",
                        path.display()
                    )
                })?;
                check(
                    command,
                    &key,
                    &values,
                    &format!("{}: `{key}`", path.display()),
                )?;
                below.insert(key, (values, at));
            }
        }
        for (name, value) in std::env::vars_os() {
            let Some(key) = key_of(&name).filter(|_| !is_service_link(&name, &value)) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            let value = variable_text(&name, value)?;
            let repeats = find(command, &key)
                .is_some_and(|arg| matches!(arg.get_action(), ArgAction::Append));
            let values = match repeats {
                true => value.split(';').map(|v| v.trim().to_owned()).collect(),
                false => vec![value],
            };
            check(command, &key, &values, &name)?;
            below.insert(key, (values, Source::Variable(name)));
        }
        below.retain(|key, _| !on_command_line(key));
        let layers = Self {
            given: given.to_vec(),
            below,
            settings: Vec::new(),
        };
        layers.with_settings(command)
    }

    /// The command line that says the same as all layers together.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut all = self.given.clone();
        for (key, (values, _)) in &self.below {
            all.extend(
                values
                    .iter()
                    .map(|value| OsString::from(format!("--{key}={value}"))),
            );
        }
        all
    }

    fn with_settings(mut self, command: &Command) -> Result<Self, String> {
        let matches = command.clone().try_get_matches_from(self.arguments());
        let matches = matches.map_err(|e| e.to_string())?;
        for arg in known(command) {
            let key = key(arg);
            let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
            let values = raw
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            let source = match (
                self.below.get(&key),
                matches.value_source(arg.get_id().as_str()),
            ) {
                (Some((_, source)), _) => source.clone(),
                (None, Some(ValueSource::CommandLine)) => Source::CommandLine,
                _ => Source::Default,
            };
            self.settings.push((key, values, source));
        }
        Ok(self)
    }
}

/// What a variable or the file says of one setting, for commands that need little else.
///
/// # Errors
/// The file cannot be read, or the setting there is no text.
pub(super) fn below(key: &str) -> Result<Option<String>, String> {
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
        Some(_) => Err(format!("{}: `{key}` must be a text", path.display())),
    }
}

/// Without white space around it: what is read from a file into a variable often ends with a line end.
fn variable_text(name: &str, value: OsString) -> Result<String, String> {
    let text = value.into_string();
    let text = text.map_err(|_| format!("{name} is no text"))?;
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

/// The file's keys and values. One that is named must be there.
fn read_file(named: Option<PathBuf>) -> Result<Option<(PathBuf, Table)>, String> {
    let from_environment = match std::env::var_os(CONFIG) {
        Some(value) => Some(PathBuf::from(variable_text(CONFIG, value)?)),
        None => None,
    };
    let named = named.or(from_environment);
    let path = named.clone().unwrap_or_else(|| Path::new(FILE).to_owned());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(format!(
                "cannot read the settings in {}: {e}",
                path.display()
            ));
        }
    };
    let table: Table = text.parse().map_err(|e: toml::de::Error| {
        format!("{}: {}", path.display(), e.to_string().trim_end())
    })?;
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

/// The setting that a variable is about; `None` where it is none of ours.
fn key_of(variable: &OsString) -> Option<String> {
    let name = variable.to_str()?.strip_prefix(PREFIX)?;
    (!OTHERS.contains(&name)).then(|| name.to_lowercase().replace('_', "-"))
}

/// Whether a variable has the form of those that Kubernetes sets in each container for each service of its namespace
/// (service links): a service that is called keywright, or keywright-something, has the prefix of our settings.
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
    // NAME_PORT_80_TCP, and the same with _PROTO, _PORT or _ADDR behind it.
    let parts: Vec<&str> = name.split('_').collect();
    parts.windows(3).any(|part| {
        part[0] == "PORT" && is_number(part[1]) && matches!(part[2], "TCP" | "UDP" | "SCTP")
    })
}

/// Whether there is such a setting and these are values of it.
fn check(command: &Command, name: &str, values: &[String], at: &str) -> Result<(), String> {
    if find(command, name).is_none() {
        let all: BTreeSet<String> = known(command).map(key).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        return Err(format!(
            "{at} is not a setting; there are {}",
            all.join(", ")
        ));
    }
    let arguments = values.iter().map(|value| format!("--{name}={value}"));
    match command.clone().try_get_matches_from(arguments) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let why = first.trim_start_matches("error: ");
            let allowed = text
                .lines()
                .find(|line| line.trim_start().starts_with("[possible values"));
            let allowed = allowed
                .map(|line| format!(" {}", line.trim()))
                .unwrap_or_default();
            Err(format!("{at}: {why}{allowed}"))
        }
    }
}
