//! Deliberate delays, repetitions and losses of messages, for tests: MQTT guarantees neither order nor single delivery.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How one message is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How many times it is published; 0: it is lost.
    pub copies: u8,
    /// How long it is delayed.
    pub delay: Duration,
}

impl Delivery {
    /// Once and without a delay.
    pub const NORMAL: Self = Self {
        copies: 1,
        delay: Duration::ZERO,
    };
}

/// Decides how a message is published, by its topic and its payload.
pub type Disorder = Arc<dyn Fn(&str, &[u8]) -> Delivery + Send + Sync>;

/// A text is not a valid disorder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid disorder; use shuffle=MILLISECONDS (a number up to 60000), repeat=CHANCE and lose=CHANCE (0 to 1), and seed=NUMBER"
)]
pub struct InvalidDisorder(String);

/// Parses a random disorder: `shuffle=20,repeat=0.3,lose=0.1,seed=7` delays each message by up to 20 ms, repeats 30 % of them, and
/// loses 10 % of the answers (`accepted`, `rejected`). An answer also notifies a backend of a lock's report. The same seed gives the
/// same sequence of decisions.
///
/// # Errors
/// See [`InvalidDisorder`].
pub fn parse_disorder(text: &str) -> Result<Disorder, InvalidDisorder> {
    let (mut shuffle, mut repeat, mut lose, mut seed) = (0, 0.0, 0.0, 1);
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let invalid = || InvalidDisorder(part.to_owned());
        let (name, value) = part.split_once('=').ok_or_else(invalid)?;
        let chance = || {
            let chance = value.parse().ok().filter(|c| (0.0..=1.0).contains(c));
            chance.ok_or_else(invalid)
        };
        match name {
            "shuffle" => {
                let max_ms = value.parse().ok().filter(|ms| *ms <= 60_000);
                shuffle = max_ms.ok_or_else(invalid)?;
            }
            "repeat" => repeat = chance()?,
            "lose" => lose = chance()?,
            "seed" => seed = value.parse().map_err(|_| invalid())?,
            _ => return Err(invalid()),
        }
    }
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    Ok(Arc::new(move |topic, _| {
        let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
        let is_answer = topic.ends_with("/accepted") || topic.ends_with("/rejected");
        let (lost, twice) = (rng.f64() < lose && is_answer, rng.f64() < repeat);
        Delivery {
            copies: u8::from(!lost) * (1 + u8::from(twice)),
            delay: Duration::from_millis(rng.u64(0..=shuffle)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_with_the_given_chances() {
        let deliveries = |text: &str| {
            let disorder = parse_disorder(text).expect(text);
            (0..1000)
                .map(|_| disorder("a/accepted", b"{}"))
                .collect::<Vec<_>>()
        };
        assert!(
            deliveries("")
                .iter()
                .all(|delivery| *delivery == Delivery::NORMAL)
        );
        assert!(
            deliveries("lose=1")
                .iter()
                .all(|delivery| delivery.copies == 0)
        );
        let delta = parse_disorder("lose=1").expect("a disorder")("a/delta", b"{}");
        assert_eq!(delta, Delivery::NORMAL, "only answers get lost");
        let some = deliveries("shuffle=9,repeat=0.5,lose=0.1,seed=3");
        let count = |copies| {
            some.iter()
                .filter(|delivery| delivery.copies == copies)
                .count()
        };
        assert!(
            (50..200).contains(&count(0)) && (350..550).contains(&count(2)),
            "{}",
            count(2)
        );
        assert!(
            some.iter()
                .any(|delivery| delivery.delay == Duration::from_millis(9))
        );
        assert_eq!(some, deliveries("shuffle=9,repeat=0.5,lose=0.1,seed=3"));
    }

    #[test]
    fn names_the_invalid_part() {
        for part in [
            "often",
            "repeat=2",
            "lose=-1",
            "shuffle=soon",
            "seed=x",
            "drop=1",
        ] {
            let error = parse_disorder(part).err().expect(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
