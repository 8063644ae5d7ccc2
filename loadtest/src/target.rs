//! Which service is tested, and with which locks.

use std::env;
use std::ops::RangeInclusive;

/// The service, its key and its locks.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) api_key: String,
    pub(crate) locks: RangeInclusive<u64>,
}

impl Target {
    /// # Errors
    /// A variable is missing or is none of its kind; the text names it.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let required = |name: &str| {
            let hint = "it is in the sandbox's data, in sandbox.env";
            env::var(name).map_err(|_| format!("{name} is not set; {hint}"))
        };
        let locks = env::var("KEYWRIGHT_LOADTEST_LOCKS").unwrap_or_else(|_| "123".into());
        Ok(Self {
            url: required("KEYWRIGHT_URL")?,
            api_key: required("KEYWRIGHT_API_KEY")?,
            locks: span(&locks).ok_or_else(|| {
                format!("KEYWRIGHT_LOADTEST_LOCKS must be a lock or a span like 1001-1040, not `{locks}`")
            })?,
        })
    }
}

fn span(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let span = first.parse().ok()?..=last.parse().ok()?;
    (!span.is_empty()).then_some(span)
}
