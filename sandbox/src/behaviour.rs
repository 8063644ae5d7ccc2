//! How a virtual lock behaves.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

/// What a virtual lock does with the writes that it finds.
///
/// Its text form lists what differs from the default: `latency=200ms,offline=5s,capacity=4,fail=NoSpace,
/// twice,silent,card=2s`. `offline=always` and `card=never` are possible, too. What is only so for a while says when:
/// `latency=2s@10s-20s,offline@30s-40s`. Of what is said of the same thing the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long it takes to write a key.
    pub latency: Duration,
    /// When it has no connection.
    pub offline: Offline,
    /// How many key slots it has.
    pub capacity: u64,
    /// The reason with which it refuses every write.
    pub fail: Option<String>,
    /// It sends each report twice.
    pub twice: bool,
    /// It writes keys and never says so.
    pub silent: bool,
    /// It needs a card to write on.
    pub card: Card,
    /// What it does otherwise for a while.
    pub script: Vec<Change>,
}

/// Something that a virtual lock does for a while. Times count from the first write that any of the virtual locks finds,
/// so that what is done to them is in step with the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it begins.
    pub from: Duration,
    /// When it is over.
    pub until: Duration,
    what: Trait,
}

/// One thing that a behaviour says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trait {
    Latency(Duration),
    Offline(Offline),
    Capacity(u64),
    Fail(String),
    Twice,
    Silent,
    Card(Card),
}

/// When a virtual lock has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// It always has one.
    Never,
    /// Not for so long from its start on.
    For(Duration),
    /// It never has one.
    Always,
}

/// Whether a virtual lock needs a card, and when somebody presents one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// It writes into its own memory.
    NotNeeded,
    /// It says that it waits, and so much later somebody presents one.
    After(Duration),
    /// It says that it waits, and gives up after its latency.
    Never,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(300),
            offline: Offline::Never,
            capacity: 100,
            fail: None,
            twice: false,
            silent: false,
            card: Card::NotNeeded,
            script: Vec::new(),
        }
    }
}

impl Behaviour {
    /// How it behaves so long after the first write.
    pub(crate) fn at(&self, elapsed: Duration) -> Cow<'_, Self> {
        let mut now = Cow::Borrowed(self);
        for change in self.script.iter().filter(|change| change.is_on(elapsed)) {
            now.to_mut().take_on(change.what.clone());
        }
        now
    }

    /// How much longer the script says that it has no connection; zero: it has one.
    pub(crate) fn offline_for(&self, elapsed: Duration) -> Duration {
        let offline = |change: &&Change| {
            change.is_on(elapsed) && matches!(change.what, Trait::Offline(Offline::Always))
        };
        let ends = self.script.iter().filter(offline);
        let ends = ends.map(|change| change.until.saturating_sub(elapsed));
        ends.max().unwrap_or_default()
    }

    fn take_on(&mut self, what: Trait) {
        match what {
            Trait::Latency(latency) => self.latency = latency,
            Trait::Offline(offline) => self.offline = offline,
            Trait::Capacity(capacity) => self.capacity = capacity,
            Trait::Fail(reason) => self.fail = Some(reason),
            Trait::Twice => self.twice = true,
            Trait::Silent => self.silent = true,
            Trait::Card(card) => self.card = card,
        }
    }
}

impl Change {
    fn is_on(&self, elapsed: Duration) -> bool {
        (self.from..self.until).contains(&elapsed)
    }
}

/// A text that is no [`Behaviour`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no behaviour of a lock: {why}")]
pub struct InvalidBehaviour {
    part: String,
    why: &'static str,
}

impl FromStr for Behaviour {
    type Err = InvalidBehaviour;

    fn from_str(text: &str) -> Result<Self, InvalidBehaviour> {
        let mut behaviour = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let invalid = |why| InvalidBehaviour {
                part: part.to_owned(),
                why,
            };
            match part.split_once('@') {
                None => {
                    let what = always(part).map_err(invalid)?;
                    let of_the_same = |change: &Change| {
                        std::mem::discriminant(&change.what) == std::mem::discriminant(&what)
                    };
                    behaviour.script.retain(|change| !of_the_same(change));
                    behaviour.take_on(what);
                }
                Some((what, when)) => {
                    let change = for_a_while(what, when).map_err(invalid)?;
                    behaviour.script.push(change);
                }
            }
        }
        Ok(behaviour)
    }
}

fn time(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "write times as in 200ms or 5s")
}

fn always(part: &str) -> Result<Trait, &'static str> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    Ok(match (name, value) {
        ("latency", _) => Trait::Latency(time(value)?),
        ("offline", "always") => Trait::Offline(Offline::Always),
        ("offline", _) => Trait::Offline(Offline::For(time(value)?)),
        ("capacity", _) => Trait::Capacity(value.parse().map_err(|_| "write it as a number")?),
        ("fail", reason) if !reason.is_empty() => Trait::Fail(reason.to_owned()),
        ("twice", "") => Trait::Twice,
        ("silent", "") => Trait::Silent,
        ("card", "never") => Trait::Card(Card::Never),
        ("card", _) => Trait::Card(Card::After(time(value)?)),
        _ => {
            return Err(
                "known are latency=D, offline=D, offline=always, capacity=N, fail=REASON, twice, silent, card=D and \
                 card=never, and for a while offline@10s-20s or any other as latency=2s@10s-20s",
            );
        }
    })
}

fn for_a_while(what: &str, when: &str) -> Result<Change, &'static str> {
    let window = when.split_once('-').map(|(from, until)| {
        let (from, until) = (time(from)?, time(until)?);
        Ok::<_, &'static str>((from, until))
    });
    let (from, until) = window.ok_or("write when as in 10s-20s")??;
    if from >= until {
        return Err("it ends before it begins");
    }
    let what = match what {
        "offline" => Trait::Offline(Offline::Always),
        _ if what.starts_with("offline=") => return Err("write it as offline@10s-20s"),
        _ => always(what)?,
    };
    Ok(Change { from, until, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_differs_from_the_default() {
        let text = "latency=1s, offline=always,capacity=4,fail=NoSpace,twice,silent,card=2s";
        let behaviour = Behaviour {
            latency: Duration::from_secs(1),
            offline: Offline::Always,
            capacity: 4,
            fail: Some("NoSpace".into()),
            twice: true,
            silent: true,
            card: Card::After(Duration::from_secs(2)),
            script: Vec::new(),
        };
        assert_eq!(text.parse(), Ok(behaviour));
        assert_eq!("".parse(), Ok(Behaviour::default()));
    }

    #[test]
    fn a_script_says_what_is_otherwise_for_a_while() {
        let text = "latency=1s,latency=5s@10s-20s,twice@15s-30s,offline@40s-50s,offline@45s-60s";
        let script: Behaviour = text.parse().expect("a behaviour");
        let at = |secs| script.at(Duration::from_secs(secs));
        let latencies: Vec<_> = [0, 9, 10, 19, 20].map(|s| at(s).latency.as_secs()).into();
        assert_eq!(latencies, [1, 1, 5, 5, 1]);
        assert_eq!(
            [14, 15, 29, 30].map(|s| at(s).twice),
            [false, true, true, false]
        );
        let offline = |secs| script.offline_for(Duration::from_secs(secs)).as_secs();
        assert_eq!([39, 40, 44, 45, 59, 60].map(offline), [0, 10, 6, 15, 1, 0]);
    }

    #[test]
    fn what_is_said_last_counts_whether_for_a_while_or_not() {
        let text = "latency=1s,latency=2s@0s-9s,twice@0s-9s,latency=3s";
        let behaviour: Behaviour = text.parse().expect("a behaviour");
        let now = behaviour.at(Duration::from_secs(5));
        assert_eq!((now.latency, now.twice), (Duration::from_secs(3), true));
    }

    #[test]
    fn a_text_that_is_none_is_refused_with_its_part() {
        for part in [
            "fast",
            "latency",
            "latency=soon",
            "capacity=-1",
            "twice=2",
            "fail",
            "fail=",
            "offline",
            "twice@10s",
            "twice@20s-10s",
            "twice@soon-later",
            "offline=5s@10s-20s",
        ] {
            let error = part.parse::<Behaviour>().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
