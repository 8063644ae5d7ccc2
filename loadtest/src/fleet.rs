//! Faults of the virtual locks, from the option --fleet.

use std::time::Duration;

use crate::population::FIRST_LOCK;
use crate::summary::Fault;

/// A prime; its multiples spread the locks with faults over all locks.
const SPREAD: u64 = 1_000_003;

/// The default behaviour of all locks.
const LATENCY: &str = "latency=100ms";

/// Behaviours of virtual locks, each with the share of locks that have it.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The text of the option.
    pub text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    text: String,
    /// From 0 to 1.
    share: f64,
    /// A behaviour in the syntax of `keywright sandbox --behaviour`.
    behaviour: String,
    /// The time window, counted from the first write; `None` for the whole run.
    window: Option<(Duration, Duration)>,
}

/// Parses the option.
///
/// # Errors
/// A part is invalid, or the shares add up to more than 100 %; the text names it.
pub fn parse(text: &str) -> Result<Fleet, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let parts: Vec<Part> = parts.map(parse_part).collect::<Result<_, _>>()?;
    let partial = parts.iter().filter(|part| !part.applies_to_all());
    let shares: f64 = partial.map(|part| part.share).sum();
    if shares > 1.0 {
        return Err(format!(
            "the shares add up to {:.0} %; each lock has at most one of these behaviours, so that 100 % is the maximum",
            shares * 100.0
        ));
    }
    Ok(Fleet {
        text: text.to_owned(),
        parts,
    })
}

fn parse_part(text: &str) -> Result<Part, String> {
    let invalid = || {
        format!(
            "`{text}`: write it as latency=300ms, twice=10%, late=5%:20s or offline=10%@20s-30s"
        )
    };
    let (what, when) = match text.split_once('@') {
        Some((what, when)) => (what, Some(when)),
        None => (text, None),
    };
    let (name, value) = what.split_once('=').ok_or_else(invalid)?;
    let (share, value) = match (name, value.split_once(':')) {
        ("latency", _) => ("100%", Some(value)),
        (_, Some((share, value))) => (share, Some(value)),
        (_, None) => (value, None),
    };
    let share = share.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
    let share = share
        .filter(|n| (0.0..=100.0).contains(n))
        .ok_or_else(invalid)?;
    let (what, when) = match (name, value, when) {
        ("twice" | "silent", None, when) => (name.to_owned(), when.map(str::to_owned)),
        // The last latency of a list counts, and that of a single lock comes last.
        ("latency" | "late", Some(value), when) => {
            (format!("latency={value}"), when.map(str::to_owned))
        }
        ("card" | "fail", Some(value), when) => {
            (format!("{name}={value}"), when.map(str::to_owned))
        }
        ("offline", Some(value), None) => (name.to_owned(), Some(format!("0s-{value}"))),
        ("offline", None, Some(when)) => (name.to_owned(), Some(when.to_owned())),
        _ => return Err(invalid()),
    };
    let window = match &when {
        None => None,
        Some(when) => Some(parse_window(when).ok_or_else(invalid)?),
    };
    let behaviour = match when {
        None => what,
        Some(when) => format!("{what}@{when}"),
    };
    Ok(Part {
        text: text.to_owned(),
        share: share / 100.0,
        behaviour,
        window,
    })
}

fn parse_window(text: &str) -> Option<(Duration, Duration)> {
    let (from, until) = text.split_once('-')?;
    let from = humantime::parse_duration(from).ok()?;
    let until = humantime::parse_duration(until).ok()?;
    (from < until).then_some((from, until))
}

impl Part {
    fn applies_to_all(&self) -> bool {
        self.share >= 1.0
    }
}

impl Fleet {
    /// The arguments for the program that runs the virtual locks.
    pub(crate) fn arguments(&self, locks: u64) -> Vec<String> {
        let common = self.parts.iter().filter(|part| part.applies_to_all());
        let common = common.map(|part| part.behaviour.as_str());
        let all: Vec<&str> = std::iter::once(LATENCY).chain(common).collect();
        let all = all.join(",");
        let mut arguments = vec!["--behaviour".to_owned(), format!("all:{all}")];
        let mut next = 0;
        for part in self.parts.iter().filter(|part| !part.applies_to_all()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a share of at most a million locks"
            )]
            let count = (locks as f64 * part.share).round() as u64;
            for n in next..(next + count).min(locks) {
                // Spread over popular and other locks.
                let lock = FIRST_LOCK + n * SPREAD % locks;
                let list = format!("{lock}:{all},{}", part.behaviour);
                arguments.extend(["--behaviour".to_owned(), list]);
            }
            next += count;
        }
        arguments
    }

    /// The faults with their times, for the report.
    pub fn faults(&self) -> Vec<Fault> {
        let fault = |part: &Part| Fault {
            what: part.text.clone(),
            from: part.window.map_or(0.0, |(from, _)| from.as_secs_f64()),
            until: part.window.map(|(_, until)| until.as_secs_f64()),
        };
        self.parts.iter().map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str, locks: u64) -> Vec<String> {
        let arguments = parse(text).expect("a fleet").arguments(locks);
        arguments.into_iter().skip(1).step_by(2).collect()
    }

    #[test]
    fn a_share_of_the_locks_has_a_behaviour() {
        let lists = lists("latency=300ms,late=2%:20s", 100);
        assert_eq!(lists.len(), 3);
        assert_eq!(lists[0], "all:latency=100ms,latency=300ms");
        for list in &lists[1..] {
            assert!(
                list.ends_with(":latency=100ms,latency=300ms,latency=20s"),
                "{list}"
            );
        }
    }

    #[test]
    fn temporary_behaviours_have_a_time_window() {
        let text = "latency=2s@10s-20s,offline=100%@30s-35s,offline=10%:5s,fail=10%:NoSpace@1s-2s,twice=1%";
        let lists = lists(text, 10);
        assert_eq!(
            lists[0],
            "all:latency=100ms,latency=2s@10s-20s,offline@30s-35s"
        );
        assert!(lists[1].ends_with(",offline@0s-5s"), "{lists:?}");
        assert!(lists[2].ends_with(",fail=NoSpace@1s-2s"), "{lists:?}");
        let faults = parse(text).expect("a fleet").faults();
        let times: Vec<_> = faults
            .iter()
            .map(|fault| (fault.from, fault.until))
            .collect();
        let windows = [(10.0, 20.0), (30.0, 35.0), (0.0, 5.0), (1.0, 2.0)];
        let windows = windows.map(|(from, until)| (from, Some(until)));
        assert_eq!(times[..4], windows);
        assert_eq!(times[4], (0.0, None));
    }

    #[test]
    fn invalid_behaviours_are_refused() {
        for text in [
            "late=2%",
            "late=2:20s",
            "silent=1%:20s",
            "late=200%:1s",
            "sleepy=1%",
            "offline=5%",
            "offline=5%:5s@1s-2s",
            "offline=5%@2s-1s",
            "latency=1s@soon",
            "twice=60%,silent=60%",
        ] {
            let error = parse(text).expect_err("refused");
            assert!(!error.is_empty(), "{text}");
        }
    }
}
