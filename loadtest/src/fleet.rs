//! The script of faults of the locks.

use std::time::Duration;

use crate::population::FIRST_LOCK;
use crate::summary::Fault;

/// A prime, by whose multiples locks with faults are spread.
const SPREAD: u64 = 1_000_003;

/// What all locks do that nothing else is said of.
const LATENCY: &str = "latency=100ms";

/// What is done to the locks, and to how many of them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// As it was written.
    pub text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    text: String,
    /// From 0 to 1.
    share: f64,
    /// As `keywright sandbox --behaviour` reads it.
    behaviour: String,
    /// Counted from the first write; `None`: all the time.
    window: Option<(Duration, Duration)>,
}

/// Reads it.
///
/// # Errors
/// A part is none, or there are not enough locks for all of them; the text says which.
pub fn read(text: &str) -> Result<Fleet, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let parts: Vec<Part> = parts.map(part).collect::<Result<_, _>>()?;
    let some = parts.iter().filter(|part| !part.is_of_all());
    let shares: f64 = some.map(|part| part.share).sum();
    if shares > 1.0 {
        return Err(format!(
            "the shares of locks that differ come to {:.0} %; each lock differs in one thing, so that 100 % is the most",
            shares * 100.0
        ));
    }
    Ok(Fleet {
        text: text.to_owned(),
        parts,
    })
}

fn part(text: &str) -> Result<Part, String> {
    let bad = || {
        format!(
            "`{text}`: write it as latency=300ms, twice=10%, late=5%:20s or offline=10%@20s-30s"
        )
    };
    let (what, when) = match text.split_once('@') {
        Some((what, when)) => (what, Some(when)),
        None => (text, None),
    };
    let (name, value) = what.split_once('=').ok_or_else(bad)?;
    let (share, value) = match (name, value.split_once(':')) {
        ("latency", _) => ("100%", Some(value)),
        (_, Some((share, value))) => (share, Some(value)),
        (_, None) => (value, None),
    };
    let share = share.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
    let share = share
        .filter(|n| (0.0..=100.0).contains(n))
        .ok_or_else(bad)?;
    let (what, when) = match (name, value, when) {
        ("twice" | "silent", None, when) => (name.to_owned(), when.map(str::to_owned)),
        // Of several latencies the last one counts, and a lock's own stand last.
        ("latency" | "late", Some(value), when) => {
            (format!("latency={value}"), when.map(str::to_owned))
        }
        ("card" | "fail", Some(value), when) => {
            (format!("{name}={value}"), when.map(str::to_owned))
        }
        ("offline", Some(value), None) => (name.to_owned(), Some(format!("0s-{value}"))),
        ("offline", None, Some(when)) => (name.to_owned(), Some(when.to_owned())),
        _ => return Err(bad()),
    };
    let window = match &when {
        None => None,
        Some(when) => Some(window(when).ok_or_else(bad)?),
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

fn window(text: &str) -> Option<(Duration, Duration)> {
    let (from, until) = text.split_once('-')?;
    let from = humantime::parse_duration(from).ok()?;
    let until = humantime::parse_duration(until).ok()?;
    (from < until).then_some((from, until))
}

impl Part {
    fn is_of_all(&self) -> bool {
        self.share >= 1.0
    }
}

impl Fleet {
    /// What is said to the program that runs the locks.
    pub(crate) fn arguments(&self, locks: u64) -> Vec<String> {
        let of_all = self.parts.iter().filter(|part| part.is_of_all());
        let of_all = of_all.map(|part| part.behaviour.as_str());
        let all: Vec<&str> = std::iter::once(LATENCY).chain(of_all).collect();
        let all = all.join(",");
        let mut arguments = vec!["--behaviour".to_owned(), format!("all:{all}")];
        let mut next = 0;
        for part in self.parts.iter().filter(|part| !part.is_of_all()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a share of at most a million locks"
            )]
            let count = (locks as f64 * part.share).round() as u64;
            for n in next..(next + count).min(locks) {
                // Spread over all, popular or not.
                let lock = FIRST_LOCK + n * SPREAD % locks;
                let list = format!("{lock}:{all},{}", part.behaviour);
                arguments.extend(["--behaviour".to_owned(), list]);
            }
            next += count;
        }
        arguments
    }

    /// What is done when, for the report.
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
        let arguments = read(text).expect("a fleet").arguments(locks);
        arguments.into_iter().skip(1).step_by(2).collect()
    }

    #[test]
    fn a_share_of_the_fleet_differs_in_one_thing() {
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
    fn what_is_done_for_a_while_is_said_with_its_time() {
        let text = "latency=2s@10s-20s,offline=100%@30s-35s,offline=10%:5s,fail=10%:NoSpace@1s-2s,twice=1%";
        let lists = lists(text, 10);
        assert_eq!(
            lists[0],
            "all:latency=100ms,latency=2s@10s-20s,offline@30s-35s"
        );
        assert!(lists[1].ends_with(",offline@0s-5s"), "{lists:?}");
        assert!(lists[2].ends_with(",fail=NoSpace@1s-2s"), "{lists:?}");
        let faults = read(text).expect("a fleet").faults();
        let times: Vec<_> = faults
            .iter()
            .map(|fault| (fault.from, fault.until))
            .collect();
        let while_on = [(10.0, 20.0), (30.0, 35.0), (0.0, 5.0), (1.0, 2.0)];
        let while_on = while_on.map(|(from, until)| (from, Some(until)));
        assert_eq!(times[..4], while_on);
        assert_eq!(times[4], (0.0, None));
    }

    #[test]
    fn what_is_no_part_of_a_fleet_is_refused() {
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
            let refused = read(text).expect_err("refused");
            assert!(!refused.is_empty(), "{text}");
        }
    }
}
