//! The help text of an option, apart from the default that it describes.

use clap::Arg;

/// The help of an option in one line, and the text of `[default: …]` at its end. Options describe their default there if it depends on
/// other settings.
pub(crate) fn help_and_default(option: &Arg) -> (String, Option<String>) {
    let help = option.get_long_help().or(option.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    match help.rsplit_once(" [default: ") {
        Some((description, default)) => {
            let default = default.trim_end_matches(['.', ']']);
            (description.to_owned(), Some(default.to_owned()))
        }
        None => (help, None),
    }
}
