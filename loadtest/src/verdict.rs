//! Limits for the results of a run, and the comparison with earlier runs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Error;
use crate::format::{percent, time};
use crate::summary::{Finding, Percentiles, Setting, Summary};

/// The share by which a run may always be worse than the worst of several earlier runs, because these may be alike by chance.
const MIN_NOISE: f64 = 0.2;

/// Differences to earlier runs that are always accepted: in milliseconds, and in shares.
const TOLERANCE_MS: f64 = 5.0;
const TOLERANCE_SHARE: f64 = 0.005;

/// The limits of one environment. A limit that is not set is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    accept_p50: Option<Time>,
    accept_p90: Option<Time>,
    accept_p99: Option<Time>,
    accept_p999: Option<Time>,
    accept_max: Option<Time>,
    confirm_p50: Option<Time>,
    confirm_p90: Option<Time>,
    confirm_p99: Option<Time>,
    confirm_p999: Option<Time>,
    confirm_max: Option<Time>,
    min_writes_per_second: Option<f64>,
    max_unconfirmed_share: Option<f64>,
    max_late_share: Option<f64>,
    max_turned_away_share: Option<f64>,
    max_error_share: Option<f64>,
}

/// A duration such as `250ms`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Time(Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = humantime::parse_duration(&text);
        time.map(Self)
            .map_err(|e| format!("`{text}`: {e}; write times as in 250ms or 2s"))
    }
}

/// The name of a value in a summary, and a function that reads it.
pub(crate) type Value<T> = (&'static str, fn(&T) -> f64);

pub(crate) const PERCENTILES: [Value<Percentiles>; 5] = [
    ("median", |times| times.p50),
    ("p90", |times| times.p90),
    ("p99", |times| times.p99),
    ("p99.9", |times| times.p999),
    ("longest", |times| times.max),
];

const SHARES: [Value<Summary>; 4] = [
    ("writes not confirmed within 30 s", |run| {
        run.unconfirmed_share
    }),
    ("late reports of locks", |run| run.late_share),
    ("requests turned away (429, 503)", |run| {
        run.turned_away_share
    }),
    ("errors (other 5xx, broken connections)", |run| {
        run.error_share
    }),
];

impl Limits {
    /// Reads the limits of an environment, which is a table of the file.
    ///
    /// # Errors
    /// The file cannot be read, or has no such environment; the text lists those that it has.
    pub fn read(path: &Path, environment: &str) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let mut all: BTreeMap<String, Self> = toml::from_str(&text).map_err(Error::file(path))?;
        let known: Vec<String> = all.keys().cloned().collect();
        all.remove(environment).ok_or_else(|| {
            Error::file(path)(format!(
                "there is no environment `{environment}`; there are {}",
                known.join(", ")
            ))
        })
    }

    fn times(&self) -> [(&'static str, [Option<Time>; 5]); 2] {
        let accept = [
            self.accept_p50,
            self.accept_p90,
            self.accept_p99,
            self.accept_p999,
            self.accept_max,
        ];
        let confirm = [
            self.confirm_p50,
            self.confirm_p90,
            self.confirm_p99,
            self.confirm_p999,
            self.confirm_max,
        ];
        [("accept", accept), ("confirm", confirm)]
    }

    /// Compares a run with these limits, and with those of every run.
    pub fn judge(&self, run: &Summary) -> Vec<Finding> {
        let mut findings = always(run);
        for (kind, limits) in self.times() {
            let times = times_of(run, kind);
            for ((name, of), limit) in PERCENTILES.iter().zip(limits) {
                let Some(Time(most)) = limit else { continue };
                let what = format!("time to {kind}, {name}");
                findings.push(at_most(what, of(times), most.as_secs_f64() * 1000.0, time));
            }
        }
        if let Some(least) = self.min_writes_per_second {
            findings.push(Finding {
                what: "writes in a second".into(),
                measured: format!("{:.1}", run.writes_per_second),
                limit: format!("at least {least}"),
                holds: run.writes_per_second >= least,
            });
        }
        let shares = [
            self.max_unconfirmed_share,
            self.max_late_share,
            self.max_turned_away_share,
            self.max_error_share,
        ];
        for ((what, of), most) in SHARES.iter().zip(shares) {
            let Some(most) = most else { continue };
            findings.push(at_most((*what).into(), of(run), most, percent));
        }
        findings
    }
}

fn at_most(what: String, measured: f64, most: f64, shown: fn(f64) -> String) -> Finding {
    Finding {
        what,
        measured: shown(measured),
        limit: format!("at most {}", shown(most)),
        holds: measured <= most,
    }
}

fn times_of<'a>(run: &'a Summary, kind: &str) -> &'a Percentiles {
    match kind {
        "accept" => &run.accept,
        _ => &run.confirm,
    }
}

/// The checks of every run.
fn always(run: &Summary) -> Vec<Finding> {
    let aborted = run.given_up.as_deref();
    let never = |what, n| count(what, n, "none", n == 0);
    let at_least_one = |what, n| count(what, n, "at least 1", n > 0);
    let mut findings = vec![
        Finding {
            what: "the service answers after the load".into(),
            measured: aborted.unwrap_or("it does").into(),
            limit: "it does".into(),
            holds: aborted.is_none(),
        },
        never(
            "200s without event, confirmed keys not in their lock",
            run.missing,
        ),
        never(
            "repeats with the same Idempotency-Key and another answer",
            run.differing_repeats,
        ),
        never("unexpected answers", run.unexpected),
        at_least_one("writes that were checked", run.writes_checked),
        at_least_one("of them confirmed", run.confirmed_checked),
        never("arrivals that this program skipped", run.no_permit),
    ];
    let slots = run.slots_checked;
    findings.extend(
        slots.map(|slots| at_least_one("slots checked in the memories of the locks", slots)),
    );
    findings
}

fn count(what: &str, count: impl Display, limit: &str, holds: bool) -> Finding {
    Finding {
        what: what.into(),
        measured: count.to_string(),
        limit: limit.into(),
        holds,
    }
}

/// Compares a run with earlier ones. A value is a regression if it is worse than all earlier ones by more than these differ.
/// With a single earlier run, it may be worse by the factor `noise`.
pub fn compare(run: &Summary, earlier: &[Summary], noise: f64) -> Vec<Finding> {
    let Some(first) = earlier.first() else {
        return Vec::new();
    };
    let most = |of: &dyn Fn(&Summary) -> f64| {
        let values = || earlier.iter().map(of);
        let (worst, best) = (
            values().fold(0.0, f64::max),
            values().fold(f64::MAX, f64::min),
        );
        match earlier.len() {
            1 => worst * noise,
            _ => worst + (worst - best).max(worst * MIN_NOISE),
        }
    };
    let mut findings = Vec::new();
    for kind in ["accept", "confirm"] {
        // Higher percentiles differ too much between runs.
        for (name, of) in &PERCENTILES[..3] {
            let of = |run: &Summary| of(times_of(run, kind));
            let what = format!("time to {kind}, {name}, against the baseline");
            findings.push(at_most(what, of(run), most(&of) + TOLERANCE_MS, time));
        }
    }
    for (what, of) in SHARES {
        let what = format!("{what}, against the baseline");
        findings.push(at_most(what, of(run), most(&of) + TOLERANCE_SHARE, percent));
    }
    // A lower rate is worse, so that the seconds for each write are compared.
    let seconds = |run: &Summary| 1.0 / run.writes_per_second;
    findings.push(Finding {
        what: "writes in a second, against the baseline".into(),
        measured: format!("{:.1}", run.writes_per_second),
        limit: format!("at least {:.1}", 1.0 / most(&seconds)),
        holds: seconds(run) <= most(&seconds),
    });
    let setting = |run: &Summary| {
        let Setting {
            load,
            service,
            fleet,
            ..
        } = &run.setting;
        [load.as_str(), service, fleet].join("; ")
    };
    let other = earlier
        .iter()
        .find(|earlier| setting(earlier) != setting(run));
    findings.push(Finding {
        what: "how the run was made, against the baseline".into(),
        measured: setting(run),
        limit: setting(other.unwrap_or(first)),
        holds: other.is_none(),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, Error> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Limits::read(file.path(), "ci")
    }

    fn failing(limits: &Limits, run: &Summary) -> Vec<String> {
        let findings = limits.judge(run);
        let failing = findings.into_iter().filter(|finding| !finding.holds);
        failing.map(|finding| finding.what).collect()
    }

    #[test]
    fn each_limit_is_compared_with_its_value() {
        let text = "[ci]\naccept_p50 = \"10ms\"\naccept_p90 = \"50ms\"\naccept_p99 = \"100ms\"\n\
            accept_p999 = \"200ms\"\naccept_max = \"300ms\"\nconfirm_p50 = \"1s\"\nconfirm_p90 = \"1500ms\"\nconfirm_p99 = \"2s\"\n\
            confirm_p999 = \"3s\"\nconfirm_max = \"4s\"\nmax_late_share = 0.1\nmin_writes_per_second = 10\nmax_unconfirmed_share = 0.1\n\
            max_turned_away_share = 0.1\nmax_error_share = 0.1\n";
        let limits = limits(text).expect("limits");
        let mut good = Summary {
            writes_checked: 2,
            confirmed_checked: 1,
            writes_per_second: 10.0,
            ..Summary::default()
        };
        good.accept.p99 = 100.0;
        assert_eq!(failing(&limits, &good), [""; 0]);
        type Change = fn(&mut Summary);
        let changes: [(Change, &str); 23] = [
            (|run| run.confirmed_checked = 0, "of them confirmed"),
            (|run| run.no_permit = 1, "skipped"),
            (|run| run.given_up = Some("no".into()), "after the load"),
            (|run| run.missing = 1, "200s without event"),
            (|run| run.accept.p90 = 50.1, "time to accept, p90"),
            (|run| run.accept.p999 = 200.1, "time to accept, p99.9"),
            (|run| run.accept.max = 300.1, "time to accept, longest"),
            (|run| run.confirm.p90 = 1500.1, "time to confirm, p90"),
            (|run| run.confirm.p999 = 3000.1, "time to confirm, p99.9"),
            (|run| run.confirm.max = 4000.1, "time to confirm, longest"),
            (|run| run.late_share = 0.11, "late"),
            (|run| run.differing_repeats = 1, "repeats"),
            (|run| run.unexpected = 1, "unexpected"),
            (|run| run.writes_checked = 0, "checked"),
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
        for (change, what) in changes {
            let mut run = good.clone();
            change(&mut run);
            let failing = failing(&limits, &run);
            assert!(
                failing.len() == 1 && failing[0].contains(what),
                "{what}: {failing:?}"
            );
        }
    }

    #[test]
    fn invalid_files_are_refused_with_a_reason() {
        for (text, part) in [
            ("[laptop]\n", "there are laptop"),
            ("[ci]\naccept_p98 = \"1s\"\n", "accept_p98"),
            ("[ci\n", "expected"),
            ("[ci]\naccept_p50 = \"soon\"\n", "write times as in 250ms"),
        ] {
            let error = limits(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_regression_is_worse_than_the_noise() {
        let mut earlier = Summary::default();
        (earlier.accept.p50, earlier.writes_per_second) = (100.0, 90.0);
        let mut run = earlier.clone();
        (run.accept.p50, run.writes_per_second) = (154.0, 60.1);
        let one = std::slice::from_ref(&earlier);
        assert!(compare(&run, one, 1.5).iter().all(|finding| finding.holds));
        (run.accept.p50, run.writes_per_second) = (156.0, 59.0);
        run.error_share = 0.006;
        let failing = |findings: Vec<Finding>| findings.iter().filter(|f| !f.holds).count();
        assert_eq!(failing(compare(&run, one, 1.5)), 3);
        assert_eq!(failing(compare(&run, one, 1.6)), 1, "the share of errors");
        // Two earlier runs differ by 40, so that 180 and the tolerance are accepted.
        let mut other = earlier.clone();
        other.accept.p50 = 140.0;
        let both = [earlier.clone(), other];
        (run.accept.p50, run.writes_per_second, run.error_share) = (184.0, 90.0, 0.0);
        assert_eq!(failing(compare(&run, &both, 1.5)), 0);
        run.accept.p50 = 186.0;
        assert_eq!(failing(compare(&run, &both, 1.5)), 1);
        // Two earlier runs are equal, so that a fifth is accepted.
        let both = [earlier.clone(), earlier.clone()];
        (run.accept.p50, run.writes_per_second) = (124.0, 76.0);
        assert_eq!(failing(compare(&run, &both, 1.5)), 0);
        (run.accept.p50, run.writes_per_second) = (126.0, 74.0);
        assert_eq!(failing(compare(&run, &both, 1.5)), 2);
    }
}
