//! `keywright settings`: the settings of the server as a Markdown page, `docs/settings.md`, or as an example file, `deploy/keywright.toml`.

use std::fmt::Write;

use clap::{Arg, ArgAction, Args, Command};

use super::output::print_line;
use crate::settings::option_help::help_and_default;

const INTRODUCTION: &str = r#"# Settings

For operators: all settings of the server, with their values, defaults and meanings.

Each setting can be given in three places. A later place in this table overrides an earlier one:

| place | example |
|---|---|
| `keywright.toml` in the working directory, or the file that `--config` or `KEYWRIGHT_CONFIG` names | `time-to-live = "24h"` |
| an environment variable | `KEYWRIGHT_TIME_TO_LIVE=24h` |
| the command line of `keywright serve`, `check-config` or `audit` | `--time-to-live 24h` |

A setting that may be given several times is a list in the file (`behaviour = ["all:twice", "123:silent"]`), and its values are
separated by `;` in a variable. In the file, `true` and `false` stand for `on` and `off`. A `TIME` is written as `500ms`, `10s`, `5m`,
`48h` or `90days`. `keywright check-config` prints each setting with its value and its place.

The program prints this page with `keywright settings`. It lists a program with all features.
"#;

/// The section of settings without a help heading.
const GENERAL: &str = "General";

const EXAMPLE_INTRODUCTION: &str = "\
# All settings of a server. Each is commented out and has its default, or a name of what it takes. The program prints this file with
# `keywright settings --example`; docs/settings.md explains how settings are given.
";

/// The width of the lines of the example, in characters.
const WIDTH: usize = 120;

#[derive(Args)]
pub(crate) struct SettingsCommand {
    /// Print a settings file with all settings instead.
    #[arg(long)]
    example: bool,
}

/// Prints the page, or the example, from the options of the server.
pub(crate) fn run(command: &SettingsCommand, server: &Command) {
    let text = match command.example {
        true => example(server),
        false => page(server),
    };
    print_line!("{}", text.trim_end());
}

/// A settings file in which everything is commented out.
fn example(server: &Command) -> String {
    let mut example = EXAMPLE_INTRODUCTION.to_owned();
    let mut heading = "";
    for option in settings(server) {
        let name = option.get_long().unwrap_or_default();
        // It names the settings file.
        if name == "config" {
            continue;
        }
        let of_option = option.get_help_heading().unwrap_or(GENERAL);
        if of_option != heading {
            heading = of_option;
            // Writing to a string cannot fail.
            let _ = write!(example, "\n## {heading}\n");
        }
        let (description, default) = help_and_default(option);
        let description = match (&default, option.get_default_values()) {
            (Some(default), []) => format!("{description} [default: {default}]"),
            _ => description,
        };
        let _ = write!(
            example,
            "\n{}# {name} = {}\n",
            commented(&description),
            value(option)
        );
    }
    example
}

/// The lines of a comment with this text.
fn commented(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if lines
            .last()
            .is_none_or(|line| line.len() + 1 + word.len() > WIDTH)
        {
            lines.push("#".into());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The default as TOML, or what the setting takes.
fn value(option: &Arg) -> String {
    let default = option.get_default_values().first();
    let text = match (default, option.get_value_names()) {
        (Some(default), _) => default.to_string_lossy().into_owned(),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => "true".into(),
    };
    match text.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) if matches!(&*text, "true" | "false") => text,
        Err(_) => format!("{text:?}"),
    }
}

/// The options that are settings.
fn settings(server: &Command) -> impl Iterator<Item = &Arg> {
    let options = server.get_arguments();
    options.filter(|option| option.get_long().is_some() && !option.is_hide_set())
}

fn page(command: &Command) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for option in settings(command) {
        let heading = option.get_help_heading().unwrap_or(GENERAL);
        let row = row(option);
        match sections.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, rows)) => rows.push_str(&row),
            None => sections.push((heading, row)),
        }
    }
    let mut page = INTRODUCTION.to_owned();
    for (heading, rows) in sections {
        let table = "| setting | value | default | description |\n|---|---|---|---|";
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {heading}\n\n{table}\n{rows}");
    }
    page
}

fn row(option: &Arg) -> String {
    let (mut description, default) = help_and_default(option);
    let default = default.unwrap_or_default();
    if !description.ends_with(['.', '…']) {
        description.push('.');
    }
    let default = match option.get_default_values() {
        [] if default.contains(' ') => default,
        [] => code(&default),
        values => {
            let values = values.iter().map(|value| code(&value.to_string_lossy()));
            values.collect::<Vec<_>>().join(", ")
        }
    };
    let value = match option.is_hide_possible_values_set() {
        true => Vec::new(),
        false => option.get_possible_values(),
    };
    let value = match value.as_slice() {
        [] => {
            let names = option.get_value_names().unwrap_or_default();
            names.iter().map(|name| code(name)).collect::<Vec<_>>()
        }
        possible => {
            for value in possible {
                if let Some(help) = value.get_help() {
                    let _ = write!(description, " {}: {help}.", code(value.get_name()));
                }
            }
            possible.iter().map(|v| code(v.get_name())).collect()
        }
    };
    if matches!(option.get_action(), ArgAction::Append) && option.get_value_delimiter().is_none() {
        description.push_str(" May be given several times.");
    }
    let setting = code(&format!("--{}", option.get_long().unwrap_or_default()));
    let cells = [setting, value.join(", "), default, description];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("`{text}`"),
    }
}
