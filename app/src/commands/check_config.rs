//! `keywright check-config`.

use serde_json::{Value, json};

use super::output::print_line;
use super::runtime::block_on;
use crate::bootstrap::file_checks;
use crate::bootstrap::shadow_access::check_environment;
use crate::settings::Settings;
use crate::settings::layers::{Setting, Source};

/// Checks the settings and the files that they name, and prints each of `all` with the place where it is set.
///
/// # Errors
/// A setting or a file cannot be used; the text names it.
pub(crate) fn run(settings: &Settings, all: &[Setting], json: bool) -> anyhow::Result<()> {
    file_checks::check(settings)?;
    block_on(check_environment(settings))?;
    match json {
        true => print_line!("{}", as_json(all)),
        false => print_table(all, settings),
    }
    Ok(())
}

fn as_json(settings: &[Setting]) -> Value {
    let settings = settings.iter().map(|setting| {
        let value = json!({ "values": setting.values, "from": setting.source.to_string() });
        (setting.key.clone(), value)
    });
    Value::Object(settings.collect())
}

fn print_table(all: &[Setting], settings: &Settings) {
    let width = all.iter().map(|setting| setting.key.len()).max();
    let width = width.unwrap_or_default();
    for Setting {
        key,
        values,
        source,
        described_default,
    } in all
    {
        if matches!(key.as_str(), "config" | "json") {
            continue;
        }
        let value = match values.as_slice() {
            [] => described_default.as_deref().unwrap_or("-").to_owned(),
            [empty] if empty.is_empty() => "-".to_owned(),
            values => values.join("; "),
        };
        match source {
            Source::Default => print_line!("{key:width$}  {value}"),
            source => print_line!("{key:width$}  {value}    ({source})"),
        }
    }
    let (shadow, reports) = (&settings.shadow, &settings.reports);
    print_line!("\nShadows are {shadow}; reports come {reports}.");
    print_line!("These settings are valid.");
}
