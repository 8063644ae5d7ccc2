//! `keywright check-config`.

use serde_json::{Value, json};

use super::{block_on, say};
use crate::bootstrap::{Error, check, check_environment};
use crate::cli::{Layers, Source};
use crate::settings::Settings;

/// Says what would run. The files that it names are read, too.
pub(crate) fn run(settings: &Settings, layers: &Layers, json: bool) -> Result<(), Error> {
    check(settings)?;
    block_on(check_environment(settings))?;
    if json {
        let settings = layers.settings.iter().map(|(key, values, source)| {
            let value = json!({ "values": values, "from": source.to_string() });
            (key.clone(), value)
        });
        say!("{}", Value::Object(settings.collect()));
        return Ok(());
    }
    let width = layers.settings.iter().map(|(key, ..)| key.len()).max();
    let width = width.unwrap_or_default();
    let settings_alone = |(key, ..): &&(String, _, _)| key != "config" && key != "json";
    for (key, values, source) in layers.settings.iter().filter(settings_alone) {
        let value = match values.as_slice() {
            [] => "-".to_owned(),
            [nothing] if nothing.is_empty() => "-".to_owned(),
            values => values.join("; "),
        };
        match source {
            Source::Default => say!("{key:width$}  {value}"),
            source => say!("{key:width$}  {value}    ({source})"),
        }
    }
    let (shadow, reports) = (&settings.shadow, &settings.reports);
    say!("\nShadows are {shadow}; reports come {reports}.");
    say!("These settings are valid.");
    Ok(())
}
