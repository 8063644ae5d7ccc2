//! What a run must keep to, and whether it does.

use std::path::Path;

use serde::Deserialize;

use crate::summary::{Setting, Summary};

/// By how much a figure may be worse than an earlier run's before it counts: runs on one machine differ as much.
const NOISE: f64 = 1.5;

/// Milliseconds that make no difference, beside that factor.
const SLACK: f64 = 5.0;

/// The limits of one environment. What is left out is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    accept_p50: Option<String>,
    accept_p99: Option<String>,
    confirm_p50: Option<String>,
    confirm_p99: Option<String>,
    min_writes_per_second: Option<f64>,
    max_unconfirmed_share: Option<f64>,
    max_turned_away_share: Option<f64>,
    max_error_share: Option<f64>,
}

/// One thing that was held against its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// What was measured.
    pub measured: String,
    /// What it must be.
    pub limit: String,
    /// Whether it is.
    pub holds: bool,
}

impl Limits {
    /// Those of an environment, each a table in a file.
    ///
    /// # Errors
    /// The file cannot be read, or has no such environment; the text says which it has.
    pub fn read(path: &Path, environment: &str) -> Result<Self, String> {
        let at = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| at(&e))?;
        let mut all: std::collections::BTreeMap<String, Self> =
            toml::from_str(&text).map_err(|e| at(&e))?;
        let known: Vec<String> = all.keys().cloned().collect();
        all.remove(environment).ok_or_else(|| {
            at(&format!(
                "there is no environment `{environment}`; there are {}",
                known.join(", ")
            ))
        })
    }

    /// Holds a run against them, and against what must always be.
    ///
    /// # Errors
    /// A time is none.
    pub fn judge(&self, run: &Summary) -> Result<Vec<Finding>, String> {
        let mut findings = vec![
            never(
                "200s without event, confirmed keys not in their lock",
                run.missing,
            ),
            never(
                "repeats under one Idempotency-Key answered otherwise",
                run.differing_repeats,
            ),
            never("answers that the request may not get", run.unexpected),
            some("writes that were checked", run.checked.0),
            some("of them confirmed", run.checked.1),
            never(
                "arrivals that the load test itself had no place for",
                run.no_place,
            ),
        ];
        let slots = run.slots_checked;
        findings
            .extend(slots.map(|slots| some("slots looked at in the locks' own memories", slots)));
        for (what, measured, limit) in [
            ("time to accept, median", run.accept.p50, &self.accept_p50),
            ("time to accept, p99", run.accept.p99, &self.accept_p99),
            (
                "time to confirm, median",
                run.confirm.p50,
                &self.confirm_p50,
            ),
            ("time to confirm, p99", run.confirm.p99, &self.confirm_p99),
        ] {
            let Some(limit) = limit else { continue };
            let most = humantime::parse_duration(limit).map_err(|e| format!("{what}: {e}"))?;
            findings.push(Finding {
                what: what.into(),
                measured: time(measured),
                limit: format!("at most {limit}"),
                holds: measured <= most.as_secs_f64() * 1000.0,
            });
        }
        if let Some(least) = self.min_writes_per_second {
            findings.push(Finding {
                what: "writes in a second".into(),
                measured: format!("{:.1}", run.writes_per_second),
                limit: format!("at least {least}"),
                holds: run.writes_per_second >= least,
            });
        }
        for (what, measured, most) in [
            (
                "writes not confirmed within 30 s",
                run.unconfirmed_share,
                self.max_unconfirmed_share,
            ),
            (
                "requests turned away (429, 503)",
                run.turned_away_share,
                self.max_turned_away_share,
            ),
            (
                "errors (other 5xx, broken connections)",
                run.error_share,
                self.max_error_share,
            ),
        ] {
            let Some(most) = most else { continue };
            findings.push(Finding {
                what: what.into(),
                measured: percent(measured),
                limit: format!("at most {}", percent(most)),
                holds: measured <= most,
            });
        }
        Ok(findings)
    }
}

/// Without any, nothing was checked.
fn some(what: &str, count: usize) -> Finding {
    Finding {
        what: what.into(),
        measured: count.to_string(),
        limit: "at least 1".into(),
        holds: count > 0,
    }
}

fn never(what: &str, count: u64) -> Finding {
    Finding {
        what: what.into(),
        measured: count.to_string(),
        limit: "none".into(),
        holds: count == 0,
    }
}

/// Holds a run against an earlier one: what is worse by more than runs differ by themselves.
pub fn compare(run: &Summary, earlier: &Summary) -> Vec<Finding> {
    let times = [
        (
            "time to accept, median, against the baseline",
            run.accept.p50,
            earlier.accept.p50,
        ),
        (
            "time to accept, p99, against the baseline",
            run.accept.p99,
            earlier.accept.p99,
        ),
        (
            "time to confirm, median, against the baseline",
            run.confirm.p50,
            earlier.confirm.p50,
        ),
        (
            "time to confirm, p99, against the baseline",
            run.confirm.p99,
            earlier.confirm.p99,
        ),
    ];
    let mut findings: Vec<Finding> = times
        .into_iter()
        .map(|(what, now, then)| Finding {
            what: what.into(),
            measured: time(now),
            limit: format!("at most {NOISE} times {} and {SLACK} ms", time(then)),
            holds: now <= then * NOISE + SLACK,
        })
        .collect();
    let made = |run: &Summary| {
        let Setting {
            load,
            service,
            fleet,
            ..
        } = &run.setting;
        [load.as_str(), service, fleet].join("; ")
    };
    findings.push(Finding {
        what: "how the run was made, against the baseline".into(),
        measured: made(run),
        limit: made(earlier),
        holds: made(run) == made(earlier),
    });
    let (now, then) = (run.writes_per_second, earlier.writes_per_second);
    findings.push(Finding {
        what: "writes in a second, against the baseline".into(),
        measured: format!("{now:.1}"),
        limit: format!("at least {then:.1} / {NOISE}"),
        holds: now >= then / NOISE,
    });
    findings
}

/// Milliseconds, as people read them.
pub fn time(millis: f64) -> String {
    match millis {
        _ if millis < 10.0 => format!("{millis:.2} ms"),
        _ if millis < 1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

/// A share, as people read it.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Limits::read(file.path(), "ci")
    }

    fn failing(limits: &Limits, run: &Summary) -> Vec<String> {
        let findings = limits.judge(run).expect("limits");
        let failing = findings.into_iter().filter(|finding| !finding.holds);
        failing.map(|finding| finding.what).collect()
    }

    #[test]
    fn each_limit_is_held_against_its_figure() {
        let text = "[ci]\naccept_p50 = \"10ms\"\naccept_p99 = \"100ms\"\nconfirm_p50 = \"1s\"\n\
            confirm_p99 = \"2s\"\nmin_writes_per_second = 10\nmax_unconfirmed_share = 0.1\n\
            max_turned_away_share = 0.1\nmax_error_share = 0.1\n";
        let limits = limits(text).expect("limits");
        let mut good = Summary {
            checked: (2, 1),
            writes_per_second: 10.0,
            ..Summary::default()
        };
        good.accept.p99 = 100.0;
        assert_eq!(failing(&limits, &good), [""; 0]);
        type Spoil = fn(&mut Summary);
        let spoiled: [(Spoil, &str); 15] = [
            (|run| run.checked.1 = 0, "of them confirmed"),
            (|run| run.no_place = 1, "no place"),
            (|run| run.missing = 1, "200s without event"),
            (|run| run.differing_repeats = 1, "repeats"),
            (|run| run.unexpected = 1, "may not get"),
            (|run| run.checked.0 = 0, "checked"),
            (|run| run.slots_checked = Some(0), "memories"),
            (|run| run.accept.p50 = 10.1, "time to accept, median"),
            (|run| run.accept.p99 = 100.1, "time to accept, p99"),
            (|run| run.confirm.p50 = 1000.1, "time to confirm, median"),
            (|run| run.confirm.p99 = 2000.1, "time to confirm, p99"),
            (|run| run.writes_per_second = 9.9, "writes in a second"),
            (|run| run.unconfirmed_share = 0.11, "not confirmed"),
            (|run| run.turned_away_share = 0.11, "turned away"),
            (|run| run.error_share = 0.11, "errors"),
        ];
        for (spoil, what) in spoiled {
            let mut run = good.clone();
            spoil(&mut run);
            let failing = failing(&limits, &run);
            assert!(
                failing.len() == 1 && failing[0].contains(what),
                "{what}: {failing:?}"
            );
        }
    }

    #[test]
    fn files_that_say_something_else_are_refused_by_name() {
        for (text, part) in [
            ("[laptop]\n", "there are laptop"),
            ("[ci]\naccept_p98 = \"1s\"\n", "accept_p98"),
            ("[ci\n", "expected"),
        ] {
            let error = limits(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
        let limits = limits("[ci]\naccept_p50 = \"soon\"\n").expect("a file");
        assert!(limits.judge(&Summary::default()).is_err());
    }

    #[test]
    fn a_run_that_is_worse_by_more_than_noise_is_found() {
        let mut earlier = Summary::default();
        (earlier.accept.p50, earlier.writes_per_second) = (100.0, 90.0);
        let mut run = earlier.clone();
        (run.accept.p50, run.writes_per_second) = (154.0, 60.0);
        assert!(compare(&run, &earlier).iter().all(|finding| finding.holds));
        (run.accept.p50, run.writes_per_second) = (156.0, 59.0);
        let worse = compare(&run, &earlier);
        assert_eq!(worse.iter().filter(|finding| !finding.holds).count(), 2);
    }
}
