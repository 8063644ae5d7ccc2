//! What a network does to messages, done on purpose: MQTT promises neither order nor single copies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What becomes of one message of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How often it is published; 0: never.
    pub copies: u8,
    /// How long it is held back.
    pub after: Duration,
}

impl Delivery {
    /// Once, and at once.
    pub const NORMAL: Self = Self {
        copies: 1,
        after: Duration::ZERO,
    };
}

/// Says what becomes of a message, by its topic and its payload.
pub type Disorder = Arc<dyn Fn(&str, &[u8]) -> Delivery + Send + Sync>;

/// A text that says no disorder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no disorder: known are shuffle=MILLISECONDS (a number up to 60000), repeat=CHANCE and lose=CHANCE (0 to 1), and seed=NUMBER"
)]
pub struct InvalidDisorder(String);

/// Messages overtake each other, come twice, or get lost, by chance: `shuffle=20,repeat=0.3,lose=0.1,seed=7`
/// holds each back for up to 20 ms, repeats a third, and loses a tenth of the answers (`accepted`, `rejected`), which
/// are also what tells a backend of a lock's report. The same seed throws the same dice.
///
/// # Errors
/// See [`InvalidDisorder`].
pub fn at_random(text: &str) -> Result<Disorder, InvalidDisorder> {
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
                let most = value.parse().ok().filter(|ms| *ms <= 60_000);
                shuffle = most.ok_or_else(invalid)?;
            }
            "repeat" => repeat = chance()?,
            "lose" => lose = chance()?,
            "seed" => seed = value.parse().map_err(|_| invalid())?,
            _ => return Err(invalid()),
        }
    }
    let dice = Mutex::new(fastrand::Rng::with_seed(seed));
    Ok(Arc::new(move |topic, _| {
        let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
        let is_answer = topic.ends_with("/accepted") || topic.ends_with("/rejected");
        let (lost, twice) = (dice.f64() < lose && is_answer, dice.f64() < repeat);
        Delivery {
            copies: u8::from(!lost) * (1 + u8::from(twice)),
            after: Duration::from_millis(dice.u64(0..=shuffle)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_fall_as_they_are_told_to() {
        let fates = |text: &str| {
            let disorder = at_random(text).expect(text);
            (0..1000)
                .map(|_| disorder("a/accepted", b"{}"))
                .collect::<Vec<_>>()
        };
        assert!(fates("").iter().all(|fate| *fate == Delivery::NORMAL));
        assert!(fates("lose=1").iter().all(|fate| fate.copies == 0));
        let delta = at_random("lose=1").expect("a disorder")("a/delta", b"{}");
        assert_eq!(delta, Delivery::NORMAL, "only answers get lost");
        let some = fates("shuffle=9,repeat=0.5,lose=0.1,seed=3");
        let count = |copies| some.iter().filter(|fate| fate.copies == copies).count();
        assert!(
            (50..200).contains(&count(0)) && (350..550).contains(&count(2)),
            "{}",
            count(2)
        );
        assert!(
            some.iter()
                .any(|fate| fate.after == Duration::from_millis(9))
        );
        assert_eq!(some, fates("shuffle=9,repeat=0.5,lose=0.1,seed=3"));
    }

    #[test]
    fn what_is_none_is_named() {
        for part in [
            "often",
            "repeat=2",
            "lose=-1",
            "shuffle=soon",
            "seed=x",
            "drop=1",
        ] {
            let error = at_random(part).err().expect(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
