//! Texts of errors for the log.

use std::error::Error;

/// The text of an error with those of its sources, which the texts of libraries often lack.
pub(crate) fn text_with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
