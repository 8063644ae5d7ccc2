//! How a virtual lock behaves.

use std::str::FromStr;
use std::time::Duration;

/// What a virtual lock does with the writes that it finds.
///
/// Its text form lists what differs from the default: `latency=200ms,offline=5s,capacity=4,fail=NoSpace,
/// twice,silent,card=2s`. `offline=always` and `card=never` are possible, too.
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
        }
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
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let time = || {
                let time = humantime::parse_duration(value);
                time.map_err(|_| invalid("write times as in 200ms or 5s"))
            };
            match (name, value) {
                ("latency", _) => behaviour.latency = time()?,
                ("offline", "always") => behaviour.offline = Offline::Always,
                ("offline", _) => behaviour.offline = Offline::For(time()?),
                ("capacity", _) => {
                    let capacity = value.parse();
                    behaviour.capacity = capacity.map_err(|_| invalid("write it as a number"))?;
                }
                ("fail", reason) if !reason.is_empty() => behaviour.fail = Some(reason.to_owned()),
                ("twice", "") => behaviour.twice = true,
                ("silent", "") => behaviour.silent = true,
                ("card", "never") => behaviour.card = Card::Never,
                ("card", _) => behaviour.card = Card::After(time()?),
                _ => {
                    return Err(invalid(
                        "known are latency=D, offline=D, offline=always, capacity=N, fail=REASON, \
                         twice, silent, card=D and card=never",
                    ));
                }
            }
        }
        Ok(behaviour)
    }
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
        };
        assert_eq!(text.parse(), Ok(behaviour));
        assert_eq!("".parse(), Ok(Behaviour::default()));
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
        ] {
            let error = part.parse::<Behaviour>().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
