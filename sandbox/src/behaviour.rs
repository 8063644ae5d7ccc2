//! How a virtual lock behaves, and the text form of that.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

/// How a virtual lock handles the writes on its shadow.
///
/// Its text form lists what differs from the default: `latency=200ms,offline=5s,capacity=4,fail=NoSpace,
/// twice,silent,card=2s`. `offline=always` and `card=never` are possible, too. A property with a time window applies only then:
/// `latency=2s@10s-20s,offline@30s-40s`. If a property is named several times, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long the lock takes to write a key.
    pub latency: Duration,
    /// When the lock has no connection.
    pub offline: Offline,
    /// How many key slots the lock has.
    pub capacity: u64,
    /// The reason with which the lock rejects every write. `None`: it accepts them.
    pub fail: Option<String>,
    /// Whether the lock sends each report twice.
    pub twice: bool,
    /// Whether the lock writes keys without reporting them.
    pub silent: bool,
    /// Whether the lock needs a card to write on.
    pub card: Card,
    /// Properties that apply only for a while.
    pub script: Vec<ScriptedChange>,
}

/// A property that applies for a while. Times count from the first write that any of the virtual locks finds, so that scripts are in
/// step with the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedChange {
    /// When it starts to apply.
    pub from: Duration,
    /// When it ends.
    pub until: Duration,
    property: Property,
}

/// One property of a behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Property {
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
    /// The lock is always connected.
    Never,
    /// The lock is offline for this long after its start.
    For(Duration),
    /// The lock is never connected.
    Always,
}

/// Whether a virtual lock needs a card, and when one is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// The lock writes into its own memory.
    NotNeeded,
    /// The lock reports IN_PROGRESS, and a card is presented after this time.
    After(Duration),
    /// The lock reports IN_PROGRESS, and fails after its latency.
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
    /// The behaviour at this time after the first write.
    pub(crate) fn at(&self, elapsed: Duration) -> Cow<'_, Self> {
        let mut now = Cow::Borrowed(self);
        for change in self.script.iter().filter(|change| change.applies(elapsed)) {
            now.to_mut().set(change.property.clone());
        }
        now
    }

    /// How much longer the script keeps the lock offline; zero: it is connected.
    pub(crate) fn remaining_offline(&self, elapsed: Duration) -> Duration {
        let offline = |change: &&ScriptedChange| {
            change.applies(elapsed) && matches!(change.property, Property::Offline(Offline::Always))
        };
        let windows = self.script.iter().filter(offline);
        let remaining = windows.map(|change| change.until.saturating_sub(elapsed));
        remaining.max().unwrap_or_default()
    }

    fn set(&mut self, property: Property) {
        match property {
            Property::Latency(latency) => self.latency = latency,
            Property::Offline(offline) => self.offline = offline,
            Property::Capacity(capacity) => self.capacity = capacity,
            Property::Fail(reason) => self.fail = Some(reason),
            Property::Twice => self.twice = true,
            Property::Silent => self.silent = true,
            Property::Card(card) => self.card = card,
        }
    }
}

impl ScriptedChange {
    fn applies(&self, elapsed: Duration) -> bool {
        (self.from..self.until).contains(&elapsed)
    }
}

/// A text is not a valid [`Behaviour`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is not a valid behaviour: {reason}")]
pub struct InvalidBehaviour {
    part: String,
    reason: &'static str,
}

/// How to write a property.
const PROPERTIES: &str = "use latency=D, offline=D, offline=always, capacity=N, fail=REASON, twice, silent, card=D or card=never; with a \
    time window write offline@10s-20s, or another property as latency=2s@10s-20s";

impl FromStr for Behaviour {
    type Err = InvalidBehaviour;

    fn from_str(text: &str) -> Result<Self, InvalidBehaviour> {
        let mut behaviour = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let invalid = |reason| InvalidBehaviour {
                part: part.to_owned(),
                reason,
            };
            match part.split_once('@') {
                None => {
                    let property = parse_property(part).map_err(invalid)?;
                    let kind = std::mem::discriminant(&property);
                    let script = &mut behaviour.script;
                    script.retain(|change| std::mem::discriminant(&change.property) != kind);
                    behaviour.set(property);
                }
                Some((property, window)) => {
                    let change = parse_change(property, window).map_err(invalid)?;
                    behaviour.script.push(change);
                }
            }
        }
        Ok(behaviour)
    }
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "write times as in 200ms or 5s")
}

fn parse_property(part: &str) -> Result<Property, &'static str> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    Ok(match (name, value) {
        ("latency", _) => Property::Latency(parse_duration(value)?),
        ("offline", "always") => Property::Offline(Offline::Always),
        ("offline", _) => Property::Offline(Offline::For(parse_duration(value)?)),
        ("capacity", _) => Property::Capacity(value.parse().map_err(|_| "write it as a number")?),
        ("fail", reason) if !reason.is_empty() => Property::Fail(reason.to_owned()),
        ("twice", "") => Property::Twice,
        ("silent", "") => Property::Silent,
        ("card", "never") => Property::Card(Card::Never),
        ("card", _) => Property::Card(Card::After(parse_duration(value)?)),
        _ => return Err(PROPERTIES),
    })
}

fn parse_change(property: &str, window: &str) -> Result<ScriptedChange, &'static str> {
    let (from, until) = window
        .split_once('-')
        .ok_or("write the time window as in 10s-20s")?;
    let (from, until) = (parse_duration(from)?, parse_duration(until)?);
    if from >= until {
        return Err("the time window ends before it starts");
    }
    let property = match property {
        "offline" => Property::Offline(Offline::Always),
        _ if property.starts_with("offline=") => return Err("write it as offline@10s-20s"),
        _ => parse_property(property)?,
    };
    Ok(ScriptedChange {
        from,
        until,
        property,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_differences_from_the_default() {
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
    fn scripted_changes_apply_in_their_time_windows() {
        let text = "latency=1s,latency=5s@10s-20s,twice@15s-30s,offline@40s-50s,offline@45s-60s";
        let script: Behaviour = text.parse().expect("a behaviour");
        let at = |secs| script.at(Duration::from_secs(secs));
        let latencies: Vec<_> = [0, 9, 10, 19, 20].map(|s| at(s).latency.as_secs()).into();
        assert_eq!(latencies, [1, 1, 5, 5, 1]);
        assert_eq!(
            [14, 15, 29, 30].map(|s| at(s).twice),
            [false, true, true, false]
        );
        let offline = |secs| {
            script
                .remaining_offline(Duration::from_secs(secs))
                .as_secs()
        };
        assert_eq!([39, 40, 44, 45, 59, 60].map(offline), [0, 10, 6, 15, 1, 0]);
    }

    #[test]
    fn the_last_of_several_values_counts() {
        let text = "latency=1s,latency=2s@0s-9s,twice@0s-9s,latency=3s";
        let behaviour: Behaviour = text.parse().expect("a behaviour");
        let now = behaviour.at(Duration::from_secs(5));
        assert_eq!((now.latency, now.twice), (Duration::from_secs(3), true));
    }

    #[test]
    fn rejects_invalid_texts_naming_the_part() {
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
