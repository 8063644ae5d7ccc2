//! Which calls of a port go wrong, and how.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is done to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Pass,
    /// It is done as it should be, this much later.
    Delay(Duration),
    /// The request never leaves.
    NotSent,
    /// It is refused: by a shadow as throttled, by a store as not available.
    Refuse,
    /// It is done, and the answer is lost.
    DropAnswer,
    /// It is lost on the way; the caller cannot know.
    LoseRequest,
    /// It stays on the way until it is released by hand; the caller gets no answer.
    Withhold,
    /// It stays on the way for this long; the caller gets no answer.
    Late(Duration),
}

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `update` of a shadow that puts an entry.
    Put,
    /// Any `update` of a shadow; one that puts an entry is asked for as [`Operation::Put`] first.
    Update,
    /// `read` of a shadow.
    Read,
    /// `save` of a store.
    Save,
    /// `load` of a store.
    Load,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// From this call to that one, counted from 1.
    Calls(u64, u64),
    /// Each call with this probability.
    Chance(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    operation: Operation,
    when: When,
    fault: Fault,
}

/// The faults of the calls to come. Where several rules fit a call, the first one is followed; where none
/// does, nothing is done to it.
///
/// Its text form lists rules: `put@1=refuse,put@3-5=drop-answer,read@2-=lose,update~0.1=delay:200ms,seed=7`
/// does so to the first put, to the third to fifth, to every reading from the second on, and to a tenth of all
/// updates. Operations are `put`, `update`, `read`, `save` and `load`; faults are `pass`, `delay:D`,
/// `not-sent`, `refuse`, `drop-answer`, `lose` and `late:D`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    rules: Vec<Rule>,
    seed: u64,
}

/// A text that is no [`FaultPlan`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}` is no fault: {why}")]
pub struct InvalidFault {
    rule: String,
    why: &'static str,
}

impl FaultPlan {
    /// The next calls of `operation` fare so, after those that the plan names already.
    #[must_use]
    pub fn then(mut self, operation: Operation, faults: impl IntoIterator<Item = Fault>) -> Self {
        let named = self.rules.iter().filter(|r| r.operation == operation);
        let mut call = named
            .map(|rule| match rule.when {
                When::Calls(_, last) => last,
                When::Chance(_) => 0,
            })
            .max()
            .unwrap_or(0);
        for fault in faults {
            call += 1;
            self.rules.push(Rule {
                operation,
                when: When::Calls(call, call),
                fault,
            });
        }
        self
    }

    /// Each call of `operation` fares so with this probability; the same `seed` chooses the same calls.
    #[must_use]
    pub fn at_random(mut self, operation: Operation, chance: f64, fault: Fault, seed: u64) -> Self {
        self.seed = seed;
        self.rules.push(Rule {
            operation,
            when: When::Chance(chance),
            fault,
        });
        self
    }
}

impl FromStr for FaultPlan {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let mut plan = Self::default();
        for rule in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            let invalid = |why| InvalidFault {
                rule: rule.to_owned(),
                why,
            };
            let (calls, fault) = rule
                .split_once('=')
                .ok_or_else(|| invalid("write it as calls=fault, such as put@1=refuse"))?;
            if calls == "seed" {
                plan.seed = fault
                    .parse()
                    .map_err(|_| invalid("the seed must be a whole number"))?;
                continue;
            }
            let (operation, when) = parse_calls(calls).map_err(invalid)?;
            plan.rules.push(Rule {
                operation,
                when,
                fault: parse_fault(fault).map_err(invalid)?,
            });
        }
        Ok(plan)
    }
}

fn parse_calls(text: &str) -> Result<(Operation, When), &'static str> {
    let at = text
        .find(['@', '~'])
        .ok_or("name the calls, as in put@1, put@2-4, put@2- or put~0.1")?;
    let (operation, when) = text.split_at(at);
    let operation = match operation {
        "put" => Operation::Put,
        "update" => Operation::Update,
        "read" => Operation::Read,
        "save" => Operation::Save,
        "load" => Operation::Load,
        _ => return Err("operations are put, update, read, save and load"),
    };
    if let Some(chance) = when.strip_prefix('~') {
        let chance = chance.parse().ok().filter(|c| (0.0..=1.0).contains(c));
        let chance = chance.ok_or("a chance must be a number from 0 to 1")?;
        return Ok((operation, When::Chance(chance)));
    }
    let calls = &when[1..];
    let number = |text: &str| {
        let number = text.parse().ok().filter(|n: &u64| *n > 0);
        number.ok_or("calls are counted from 1")
    };
    let when = match calls.split_once('-') {
        None => When::Calls(number(calls)?, number(calls)?),
        Some((first, "")) => When::Calls(number(first)?, u64::MAX),
        Some((first, last)) => When::Calls(number(first)?, number(last)?),
    };
    if matches!(when, When::Calls(first, last) if first > last) {
        return Err("the first call must not come after the last one");
    }
    Ok((operation, when))
}

fn parse_fault(text: &str) -> Result<Fault, &'static str> {
    let (name, span) = match text.split_once(':') {
        Some((name, span)) => (name, Some(span)),
        None => (text, None),
    };
    let span = span
        .map(humantime::parse_duration)
        .transpose()
        .map_err(|_| "write times as in 200ms or 5s")?;
    Ok(match (name, span) {
        ("pass", None) => Fault::Pass,
        ("not-sent", None) => Fault::NotSent,
        ("refuse", None) => Fault::Refuse,
        ("drop-answer", None) => Fault::DropAnswer,
        ("lose", None) => Fault::LoseRequest,
        ("delay", Some(span)) => Fault::Delay(span),
        ("late", Some(span)) => Fault::Late(span),
        _ => {
            return Err(
                "faults are pass, delay:200ms, not-sent, refuse, drop-answer, lose \
                        and late:2s",
            );
        }
    })
}

/// A plan that is being followed. Clones follow it together.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<Following>>);

struct Following {
    plan: FaultPlan,
    calls: HashMap<Operation, u64>,
    random: fastrand::Rng,
}

impl Faults {
    /// Follows a plan from its start.
    pub fn new(plan: FaultPlan) -> Self {
        Self(Arc::new(Mutex::new(Following::new(plan))))
    }

    /// From now on another plan is followed, from its start.
    pub fn set(&self, plan: FaultPlan) {
        *self.following() = Following::new(plan);
    }

    /// What is done to this call, which fits each of these operations.
    pub(super) fn next(&self, operations: &[Operation]) -> Fault {
        let mut following = self.following();
        let mut chosen = None;
        for operation in operations {
            let fault = following.next(*operation);
            chosen = chosen.or(fault);
        }
        chosen.unwrap_or(Fault::Pass)
    }

    fn following(&self) -> std::sync::MutexGuard<'_, Following> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(FaultPlan::default())
    }
}

impl Following {
    fn new(plan: FaultPlan) -> Self {
        Self {
            random: fastrand::Rng::with_seed(plan.seed),
            calls: HashMap::new(),
            plan,
        }
    }

    fn next(&mut self, operation: Operation) -> Option<Fault> {
        let call = self.calls.entry(operation).or_insert(0);
        *call += 1;
        let (call, random) = (*call, &mut self.random);
        let mut rules = self.plan.rules.iter().filter(|r| r.operation == operation);
        let rule = rules.find(|rule| match rule.when {
            When::Calls(first, last) => (first..=last).contains(&call),
            When::Chance(chance) => random.f64() < chance,
        });
        rule.map(|rule| rule.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(plan: &str, calls: usize) -> Vec<Fault> {
        let faults = Faults::new(plan.parse().expect("a plan"));
        (0..calls)
            .map(|_| faults.next(&[Operation::Put, Operation::Update]))
            .collect()
    }

    #[test]
    fn a_text_says_which_calls_fare_how() {
        let (pass, late) = (Fault::Pass, Fault::Late(Duration::from_secs(2)));
        assert_eq!(
            fates("put@2=refuse, update@3-4=late:2s,put@6-=lose", 7),
            [
                pass,
                Fault::Refuse,
                late,
                late,
                pass,
                Fault::LoseRequest,
                Fault::LoseRequest
            ]
        );
    }

    #[test]
    fn the_same_seed_chooses_the_same_calls() {
        let some = fates("put~0.5=lose,seed=7", 64);
        assert_eq!(fates("put~0.5=lose,seed=7", 64), some);
        assert_ne!(fates("put~0.5=lose,seed=8", 64), some);
        let lost = some.iter().filter(|f| **f == Fault::LoseRequest).count();
        assert!((16..48).contains(&lost), "{lost} of 64");
    }

    #[test]
    fn a_text_that_is_none_is_refused_with_its_rule() {
        for text in [
            "refuse",
            "put=refuse",
            "put@0=refuse",
            "put@a=refuse",
            "put@3-1=refuse",
            "put@1=withhold",
            "put~2=refuse",
            "get@1=refuse",
            "put@1=explode",
            "put@1=delay",
            "put@1=delay:soon",
            "put@1=refuse:1s",
            "seed=x",
        ] {
            let error = text.parse::<FaultPlan>().expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
