//! Rows of the table of ratios.

/// One row of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    /// The reference that it is compared with.
    pub(crate) reference: String,
    /// The value that is compared with the target.
    pub(crate) figure: f64,
    pub(crate) target: Target,
}

/// The limit of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

impl Row {
    /// Prints the row as Markdown, with the command that repeats the measurement.
    pub(crate) fn print(&self, part: &str) {
        let (target, holds) = match self.target {
            Target::AtLeast(min) => (format!("≥ {min}"), self.figure >= min),
            Target::AtMost(max) => (format!("≤ {max}"), self.figure <= max),
            Target::None => (String::new(), true),
        };
        let verdict = match (self.target, holds) {
            (Target::None, _) => "",
            (_, true) => "reached",
            (_, false) => "not reached",
        };
        println!(
            "| {} | {} | {} | {:.2} | {target} | {verdict} | `scripts/bench {part}` |",
            self.what, self.measured, self.reference, self.figure
        );
    }
}

/// The median of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
