//! The Prometheus text format 0.0.4, made from OpenMetrics.

/// The same metrics in the text format. It describes a counter by the name of its samples, and has no lines for units and the
/// end.
pub(super) fn to_text_format(open_metrics: &str) -> String {
    let is_counter = |name: &str| {
        let line = format!("# TYPE {name} counter");
        open_metrics.lines().any(|known| known == line)
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match [(); 4].map(|()| words.next()) {
            [Some("#"), Some("UNIT" | "EOF"), ..] => continue,
            [
                Some("#"),
                Some(kind @ ("HELP" | "TYPE")),
                Some(name),
                Some(rest),
            ] if is_counter(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_names_of_their_samples() {
        let text = to_text_format(
            "# HELP a_b Counts a b.\n# TYPE a_b counter\na_b_total{x=\"y z\"} 1\n\
             # HELP c_seconds Took.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_count 0\n# EOF\n",
        );
        assert_eq!(
            text,
            "# HELP a_b_total Counts a b.\n# TYPE a_b_total counter\na_b_total{x=\"y z\"} 1\n\
             # HELP c_seconds Took.\n# TYPE c_seconds histogram\nc_seconds_count 0\n"
        );
    }
}
